"""Five hundred signals for four accounts, with repeated and bad ones: everyone tells the same story."""

from __future__ import annotations

from streamapp.local.own import OwnStack
from tests.e2e.road import travel


async def test_every_signal_is_decided_and_every_witness_tells_the_same_story(stack: OwnStack) -> None:
    outcome = await travel(stack.settings, signals=500, rate=40, seed=7)
    assert outcome.differences == []
    # A good or rejected signal makes an order, all others make none.
    assert outcome.orders == outcome.sent["good"] + outcome.sent["rejected"]
    decided = [d for d in outcome.evidence.decisions if d.signal_id.startswith(outcome.run)]
    readable = outcome.sent.total() - outcome.sent["broken"]
    assert len(decided) == readable
    assert outcome.evidence.dead_letters >= 1
