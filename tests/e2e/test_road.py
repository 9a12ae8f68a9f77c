"""Three hundred signals for four accounts, with repeated and bad ones: everyone tells the same story."""

from __future__ import annotations

from streamapp.local.own import OwnStack
from tests.e2e.road import travel


async def test_every_signal_is_decided_and_every_witness_tells_the_same_story(stack: OwnStack) -> None:
    outcome = await travel(stack.settings, signals=300, rate=40, seed=7)
    assert outcome.differences == []
    # Nothing was away, so nothing came too late: a good or rejected signal makes an order, all others make none.
    assert outcome.orders == outcome.sent("good", "rejected")
    decided = [decision for decision in outcome.evidence.decisions if decision.signal_id.startswith(outcome.run)]
    assert len(decided) == outcome.sent() - outcome.sent("broken")
    assert all(outcome.sent(kind) for kind in ("repeated", "conflicting", "refused", "rejected", "broken"))
