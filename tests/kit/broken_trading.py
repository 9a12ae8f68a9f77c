"""The trading worker with a rule that breaks on one record: no real one is known on which a rule of ours does."""

from __future__ import annotations

from streamapp.desk import inputs
from streamapp.desk.inputs import Incoming, RecordInput, parse
from streamapp.desk.policy import Policy
from tests.kit.trading_house import BREAKS


def _breaking(incoming: Incoming, policy: Policy) -> list[RecordInput]:
    if incoming.payload == BREAKS:
        raise KeyError("the rule that broke")
    return parse(incoming, policy)


# Before the worker's modules take it.
vars(inputs)["parse"] = _breaking

from streamapp.trading import app  # noqa: E402, F401
