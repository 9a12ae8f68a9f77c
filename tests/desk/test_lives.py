"""A day of inputs comes to the same bytes whatever was killed in it, and wherever its batches were cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import topics
from streamapp.desk.pruning import row_of
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.domain.fold import deal_of
from streamapp.domain.identifiers import order_id_for
from streamapp.errors import Definite, Transient
from streamapp.messages.report import REPORT_BODIES, Report, ReportBatch
from tables.accounts import ACCOUNT as ACCOUNTS
from tables.accounts import AccountRow
from tests.kit.desk import ACCOUNT, SIGNAL, DeskWorld
from tests.kit.examples import fact_sets

ORDER = order_id_for("streamapp", ACCOUNT, "s-1")
KINDS: dict[type, Any] = {body: kind for kind, body in REPORT_BODIES.items()}
SIGNAL_BYTES = json.dumps(SIGNAL | {"signal_id": "s-1", "account": ACCOUNT, "volume": "1"}).encode()
DEALS = (facts.Filled, facts.FillCorrected, facts.FillBusted)

Deaths = st.sampled_from(["none", "redelivered", "restarted", "before_commit", "after_commit", "unpublished"])
Days = fact_sets.map(lambda several: [each for each in several if not isinstance(each.body, facts.SubmitClaimed)])
"""What a terminal may report of an order in a day: everything but the claim, which is ours."""


def reports_of(several: Sequence[Fact], strangers: frozenset[int]) -> list[Report]:
    """Return facts as reports; the deals that are first told of at ``strangers`` are no order's of ours.

    Those that are taken back are ours: with the bust of another one a terminal says what it was.
    """
    first: dict[int, int] = {}
    for seq, fact in enumerate(several, start=1):
        if isinstance(fact.body, DEALS):
            number = deal_of(fact)[0]
            first[number] = 0 if isinstance(fact.body, facts.FillBusted) else first.get(number, seq)
    return [
        Report(
            seq=seq,
            at=fact.at,
            kind=KINDS[type(fact.body)],
            order_id=None if isinstance(fact.body, DEALS) and first[deal_of(fact)[0]] in strangers else ORDER,
            body=fact.body,
        )
        for seq, fact in enumerate(several, start=1)
    ]


async def give(world: DeskWorld, group: Sequence[Report] | None) -> None:
    """Give a batch of reports, or None: the signal; wait for nothing."""
    if group is None:
        await world.give(SIGNAL_BYTES, topics.SIGNALS_APPROVED, "signal", sequence=1)
        return
    batch = ReportBatch(account=ACCOUNT, epoch="e1", first_seq=group[0].seq, reports=tuple(group))
    await world.give(batch.encode(), topics.BROKER_REPORTS, "reports", sequence=group[0].seq)


async def live_through(world: DeskWorld, group: Sequence[Report] | None, death: str) -> None:
    """Give a group, let the worker die as told, and deliver the group again to the one that comes after it."""
    if death == "before_commit":
        world.store.refuse = Definite("killed before the commit")
    if death in {"after_commit", "unpublished"}:
        world.outlet.refuse = Transient("killed before anything was published")
        world.producer.silent = death == "after_commit"
    await give(world, group)
    await world.settled()
    world.store.refuse = world.outlet.refuse = None
    world.producer.silent = False
    if death not in {"none", "redelivered"}:
        await world.restart()
        await world.tick()
    if death != "none":
        await give(world, group)
        await world.settled()


def result_of(world: DeskWorld) -> dict[str, Any]:
    """Return everything that a day leaves behind, repetitions left out, and how it was cut into commits."""
    rows = {
        key: _whole(key, value)
        if prefix != ACCOUNTS
        else AccountRow.decode(value).model_copy(update={"number": 0}).encode()
        for prefix in (b"s/", b"o/", b"p/", b"d/", ACCOUNTS)
        for partition in world.store.owned
        for key, value in world.store.scan(partition, prefix)
    }
    said = [each.model_dump_json() for commit in world.commits for each in commit.messages]
    archived = [each.model_dump_json() for commit in world.commits for each in commit.facts]
    return {
        "rows": rows,
        "facts": list(dict.fromkeys(archived)),
        "messages": list(dict.fromkeys(said)),
        "published": world.outlet.stored,
    }


@settings(max_examples=40, deadline=None)
@given(Days, st.frozensets(st.integers(1, 14)), st.data())
async def test_a_day_is_the_same_bytes_whatever_was_killed_in_it(
    several: list[Fact], strangers: frozenset[int], data: st.DataObject
) -> None:
    reports = reports_of(several, strangers)
    signalled = data.draw(st.integers(0, len(reports)), label="reports before the signal")
    witness, world = await DeskWorld().start(), await DeskWorld().start()
    for part in (reports[:signalled], None, reports[signalled:]):
        if part != []:
            await give(witness, part)
    await witness.settled()
    for group in [*cut(reports[:signalled], data), None, *cut(reports[signalled:], data)]:
        await live_through(world, group, data.draw(Deaths, label="death"))
    assert result_of(world) == result_of(witness)
    assert {request.hash for request in world.terminals.submits} == {
        request.hash for request in witness.terminals.submits
    }
    assert world.failures == [error for error in world.failures if isinstance(error, Definite)]


@settings(max_examples=30, deadline=None)
@given(Days, st.frozensets(st.integers(1, 14)), st.data())
async def test_a_day_is_the_same_bytes_whatever_is_put_away_in_it(
    several: list[Fact], strangers: frozenset[int], data: st.DataObject
) -> None:
    reports = reports_of(several, strangers)
    signalled = data.draw(st.integers(0, len(reports)), label="reports before the signal")
    witness, world = await DeskWorld().start(), await DeskWorld(closed=timedelta(days=-1)).start()
    for group in [*cut(reports[:signalled], data), None, *cut(reports[signalled:], data), None]:
        await give(witness, group)
        await witness.settled()
        death = data.draw(st.sampled_from(["none", "redelivered", "restarted"]), label="death")
        await live_through(world, group, death)
        if data.draw(st.booleans(), label="pruned"):
            await world.prune()
    assert result_of(world) == result_of(witness)
    await world.prune()
    assert result_of(world) == result_of(witness)
    assert not world.failures


def _whole(key: bytes, value: bytes) -> bytes:
    """Return a row as it is when it is not put away."""
    row = row_of(key, value)
    assert row is not None
    return row.encode()


def cut(reports: list[Report], data: st.DataObject) -> list[list[Report] | None]:
    """Return reports in batches of any size."""
    groups: list[list[Report] | None] = []
    at = 0
    while at < len(reports):
        size = data.draw(st.integers(1, 5), label="reports in a batch")
        groups.append(reports[at : at + size])
        at += size
    return groups
