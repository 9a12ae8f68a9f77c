"""``streamapp signal``: what is asked for, and when what was sent is at its end."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from streamapp.cli import app
from streamapp.commands.signals import Following


def order(order_id: str, status: str) -> dict[str, Any]:
    return {"schema": "order/1", "order_id": order_id, "status": status}


def accepted(*order_ids: str, account: str = "a") -> dict[str, Any]:
    return {"schema": "accepted/1", "account": account, "order_ids": list(order_ids)}


REFUSED = {"schema": "refused/1", "account": "a"}


@pytest.mark.parametrize(
    ("heard", "end"),
    [
        ([accepted("o-1")], None),
        ([order("o-1", "filled")], None),
        ([order("o-1", "filled"), accepted("o-1")], "filled"),
        ([accepted("o-1"), order("o-1", "submitted"), order("o-1", "rejected")], "rejected"),
        ([order("o-1", "filled"), order("o-1", "submitted"), accepted("o-1")], "filled"),
        ([accepted("o-1", "o-2"), order("o-1", "filled")], None),
        ([accepted("o-1", "o-2"), order("o-2", "filled"), order("o-1", "filled")], "filled"),
        ([accepted("o-1", "o-2"), order("o-2", "cancelled"), order("o-1", "filled")], "cancelled"),
        ([accepted()], "filled"),
        ([REFUSED], "refused"),
    ],
)
def test_a_signal_is_over_when_it_is_answered_and_all_of_its_orders_are(
    heard: list[dict[str, Any]], end: str | None
) -> None:
    following = Following()
    for content in heard:
        following.hear(content)
    assert following.end == end


def test_a_signal_of_several_accounts_is_over_when_all_of_them_have_answered_and_are_done() -> None:
    following, ends = Following(copies=2), []
    whole = {"schema": "answer/1"}
    for content in (accepted("o-1"), order("o-1", "filled"), REFUSED | {"account": "b"}, whole):
        following.hear(content)
        ends.append(following.end)
    assert ends == [None, None, None, "refused"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["EURUSD"], "SIDE and VOLUME"),
        (["EURUSD", "buy"], "SIDE and VOLUME"),
        (["EURUSD", "--close", "--reverse"], "--close and --reverse"),
    ],
)
def test_what_can_not_be_meant_is_said_before_anything_is_sent(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["signal", *arguments], env={"TERM": "dumb", "COLUMNS": "200"})
    assert result.exit_code == 2
    assert words in result.output
