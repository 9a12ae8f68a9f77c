"""The publisher: in order within an account, for as long as it takes, and never after not_after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from agents.outbox import Unsaid
from agents.publisher import Publisher
from streamapp.desk.policy import Policy
from streamapp.desk.state import Draft
from streamapp.errors import Ambiguous, Transient, Unusable
from streamapp.messages.commit import Publication
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.decision import RefusedMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Role, Settings
from tests.kit.desk import DeskWorld
from tests.kit.records import NOW, FakeClock
from tests.kit.waiting import eventually


class FakeOutlet:
    """Remembers what was stored; ``away`` are subjects not stored now (``*``: all), ``refuses`` those never stored."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes, dict[str, str]]] = []
        self.away: set[str] = set()
        self.refuses: set[str] = set()

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        await asyncio.sleep(0)
        if subject in self.refuses:
            raise Unusable("too_long", "NATS takes 3 bytes")
        if self.away & {subject, "*"}:
            raise Transient("NATS: not connected")
        self.said.append((subject, payload, dict(headers)))


class Bench:
    """A publisher with everything around it; ``burying`` is what keeping a dead letter fails with."""

    def __init__(self) -> None:
        self.outlet, self.clock, self.metrics = FakeOutlet(), FakeClock(), TradingMetrics()
        self.done: list[Unsaid] = []
        self.letters: list[tuple[DeadLetter, str]] = []
        self.failures: list[BaseException] = []
        self.burying: Exception | None = None
        self.publisher = Publisher(
            self.outlet,
            "streamapp/both",
            done=self.done.append,
            bury=self._bury,
            clock=self.clock,
            metrics=self.metrics,
            on_failure=self.failures.append,
        )

    async def _bury(self, letter: DeadLetter, unsaid: Unsaid) -> None:
        if self.burying is not None:
            raise self.burying
        self.letters.append((letter, unsaid.account))

    def put(self, *publications: Publication, account: str = "a", partition: int = 1) -> Unsaid:
        unsaid = Unsaid(account, partition, 7, b"{}", publications)
        self.publisher.put(unsaid)
        return unsaid

    async def published(self, *commits: Unsaid) -> None:
        await eventually(lambda: set(commits) <= set(self.done))

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _, _ in self.outlet.said]


def words(subject: str | None, payload: bytes = b"{}", *, not_after: datetime | None = None) -> Publication:
    return Publication(payload, subject, "streamapp:order:o-1:1", "00-1-2-01", not_after)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("agents.publisher.FIRST_PAUSE_S", 0)
    monkeypatch.setattr("agents.publisher.LONGEST_PAUSE_S", 0)
    return Bench()


async def test_a_message_is_published_untouched_with_its_id_and_who_we_are(bench: Bench) -> None:
    await bench.published(bench.put(words("orders.filled.EURUSD", b'{"schema": "order/1"}'), words(None)))
    assert bench.outlet.said == [
        (
            "orders.filled.EURUSD",
            b'{"schema": "order/1"}',
            {
                "Nats-Msg-Id": "streamapp:order:o-1:1",
                "Streamapp-Origin": "streamapp/both",
                "Content-Type": "application/json",
                "traceparent": "00-1-2-01",
            },
        )
    ]
    assert 'streamapp_published_total{schema="order"} 1.0' in bench.metrics.text()


async def test_what_waits_holds_back_the_later_commits_of_its_account_and_no_other(bench: Bench) -> None:
    bench.outlet.away = {"orders.submitted.X"}
    first = bench.put(words("orders.pending.X"), words("orders.submitted.X"))
    second = bench.put(words("orders.filled.X"))
    other = bench.put(words("orders.pending.Y"), words("orders.filled.Y"), account="b")
    await bench.published(other)
    await eventually(lambda: bench.publisher.troubles)
    assert sorted(bench.subjects) == ["orders.filled.Y", "orders.pending.X", "orders.pending.Y"]
    assert list(bench.publisher.troubles) == ["NATS: not connected"]
    assert bench.done == [other]
    bench.outlet.away = set()
    await bench.published(first, second)
    assert bench.subjects[3:] == ["orders.submitted.X", "orders.filled.X"]
    assert not bench.publisher.troubles
    assert bench.metrics.publish_retries._value.get() > 0


async def test_the_messages_of_a_commit_are_on_their_way_together_and_in_their_order(bench: Bench) -> None:
    subjects = [f"orders.filled.{number}" for number in range(20)]
    await bench.published(bench.put(*map(words, subjects)), bench.put(words("orders.pending.X")))
    assert bench.subjects == [*subjects, "orders.pending.X"]


async def test_what_nats_will_never_take_is_a_dead_letter_and_the_next_is_published(bench: Bench) -> None:
    bench.outlet.refuses = {"orders.pending.X"}
    await bench.published(bench.put(words("orders.pending.X", b"long"), words("orders.filled.X")))
    assert bench.subjects == ["orders.filled.X"]
    [(letter, account)] = bench.letters
    assert (letter.value, letter.reason, letter.headers["subject"], account) == (
        b"long",
        "too_long",
        b"orders.pending.X",
        "a",
    )


async def test_a_dead_letter_that_is_not_taken_ends_the_worker_and_the_commit_stays_unsaid(bench: Bench) -> None:
    bench.outlet.refuses, bench.burying = {"orders.pending.X"}, Ambiguous("no answer")
    bench.put(words("orders.pending.X"))
    await eventually(lambda: bench.failures)
    assert (bench.failures, bench.done) == ([bench.burying], [])


@pytest.mark.parametrize(("left_s", "is_asked"), [(-1, False), (0, False), (1, True)])
async def test_somebody_else_s_connector_is_never_asked_after_not_after(
    bench: Bench, left_s: float, is_asked: bool
) -> None:
    asking = words("orders.submitted.X", not_after=NOW + timedelta(seconds=left_s))
    await bench.published(bench.put(asking, words("orders.filled.X")))
    assert bench.subjects == ["orders.submitted.X"] * is_asked + ["orders.filled.X"]
    assert bench.metrics.left_out.labels("not_after")._value.get() == (not is_asked)


async def test_asking_is_given_up_when_not_after_passes_while_nats_is_away(bench: Bench) -> None:
    bench.outlet.away = {"*"}
    asking = bench.put(words("orders.submitted.X", not_after=NOW + timedelta(seconds=30)))
    await eventually(lambda: bench.publisher.troubles)
    bench.clock.now = NOW + timedelta(seconds=30)
    await bench.published(asking)
    assert bench.outlet.said == []


async def test_what_is_left_of_a_partition_that_was_revoked_is_its_next_owner_s_to_publish(bench: Bench) -> None:
    bench.outlet.away = {"*"}
    lost = [bench.put(words("orders.pending.X")), bench.put(words("orders.filled.X"))]
    kept = bench.put(words("orders.filled.Y"), account="b", partition=2)
    await eventually(lambda: bench.publisher.troubles)
    bench.publisher.drop(frozenset({1}))
    again = bench.put(words("orders.cancelled.X"))
    bench.outlet.away = set()
    await bench.published(kept, again)
    assert sorted(bench.subjects) == ["orders.cancelled.X", "orders.filled.Y"]
    assert not set(lost) & set(bench.done)
    assert (bench.failures, bench.publisher.troubles) == ([], ())


async def test_messages_of_several_partitions_and_no_account_are_dropped_by_partition(bench: Bench) -> None:
    bench.outlet.away = {"*"}
    commits = [bench.put(words(f"signals.refused.{place}"), account="", partition=place) for place in (2, 1, 2)]
    await eventually(lambda: bench.publisher.troubles)
    bench.publisher.drop(frozenset({1}))
    bench.outlet.away = set()
    await bench.published(commits[0], commits[2])
    assert bench.subjects == ["signals.refused.2"] * 2
    assert bench.done == [commits[0], commits[2]]


@pytest.mark.parametrize(
    ("role", "published"),
    [
        ("both", ["orders.filled.X", "broker.fill.X", "broker.error.X", "accounts.a"]),
        ("execution", ["orders.filled.X", "broker.error.X", "accounts.a"]),
        ("connector", ["broker.fill.X", "broker.error.X"]),
    ],
)
def test_each_role_publishes_what_is_its_to_publish_and_archives_the_rest(role: Role, published: list[str]) -> None:
    draft = Draft("a", NOW, Policy.of(Settings(role=role)), lambda _key, _model: None)
    message = RefusedMessage(signal_id="s-1", account="a", symbol="X", reason="stale", at=NOW)
    everything = ["orders.filled.X", "broker.fill.X", "broker.error.X", "accounts.a"]
    for subject in everything:
        draft.publish(message, subject=subject, id_parts=("order", "o-1", 1))
    assert [each.subject for each in draft.publications if each.subject is not None] == published
    assert all((each.id is None) == (each.subject is None) for each in draft.publications)
    assert len(draft.publications) == len(everything)


async def test_the_trace_of_a_signal_is_that_of_everything_it_causes() -> None:
    world = await DeskWorld().start()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    payload = b'{"signal_id":"s-1","account":"a","status":"approved","symbol":"EURUSD","side":"buy",'
    payload += b'"order_type":"market","volume":"0.1"}'
    await world.give(payload, "signals_approved", "signal", headers={"traceparent": trace})
    await world.settled()
    assert {headers["traceparent"] for _, _, headers in world.outlet.stored} == {trace.decode()}
    assert len(world.outlet.stored) == 3
