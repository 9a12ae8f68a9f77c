"""One signal to several accounts: completion splits it, each desk decides on its copy, and one message answers."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from agents.completion import Completion
from streamapp import topics
from streamapp.desk.acceptance import decide_signal
from streamapp.desk.inputs import Incoming, NewSignal
from streamapp.desk.state import Draft
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.errors import Ambiguous, Transient
from streamapp.kafka.producer import Record
from streamapp.settings import Settings
from tables.bindings import BindingRow, binding_key
from tests.kit.desk import SIGNAL, DeskWorld
from tests.kit.records import event

WHOLE: dict[str, Any] = {"signal_id": "s-1"} | SIGNAL
ACCOUNTS: dict[str, Any] = {
    "a": {"login": 1},
    "b": {"login": 2, "volume_factor": "3", "volume_step": "0.01"},
    "c": {"login": 3, "volume_step": "0.01"},
}
WEIGHTS = {"a": "1", "b": "0.5", "c": "0.01"}
"""Of 0.1 lots ``a`` trades 0.1, ``b`` 0.15, and what is left for ``c`` is nothing."""
EXIT: dict[str, Any] = {"intent": "close", "side": None, "order_type": None, "volume": None}
PARTITION = partition_of("s-1", 8)


class House:
    """Completion and the desks of one worker, and the two topics between them."""

    def __init__(self, route: Any = None) -> None:
        self.world = DeskWorld(self._settings(route or WEIGHTS))
        self.completion = self._build()
        self._taken: dict[str, int] = {}

    @staticmethod
    def _settings(route: Any) -> Settings:
        return Settings.model_validate({"accounts": ACCOUNTS, "execution": {"routing": {"*/*": route}}})

    def _build(self) -> Completion:
        world = self.world
        return Completion(
            world.store,
            world.producer,
            world.outbox,
            settings=world.settings,
            clock=world.clock,
            metrics=world.metrics,
            ready=world.desk.ready,
        )

    async def start(self) -> House:
        await self.world.start()
        return self

    async def restart(self, route: Any = None) -> None:
        """Let the worker die, and start one, perhaps with another route, on what survives."""
        if route is not None:
            self.world.settings = self._settings(route)
        await self.world.restart()
        self.completion = self._build()

    async def send(self, *, sequence: int = 5, **changes: Any) -> None:
        """Give completion a signal without an account."""
        said = WHOLE | changes
        place: dict[str, Any] = {"account": said["signal_id"], "sequence": sequence, "at": self.world.clock.now}
        headers = {topics.FAMILY: b"signal"}
        given = event(json.dumps(said).encode(), topic=topics.INCOMPLETE, headers=headers, **place)
        await self.completion.handle(Incoming.of(given))

    def copies(self) -> list[Record]:
        return self._new(topics.SIGNALS_APPROVED)

    async def decide(self, *records: Record) -> None:
        """Give copies to their desks, all that are new if none is named."""
        for record in records or self.copies():
            assert record.key is not None
            await self.world.give(
                record.value,
                record.topic,
                "signal",
                account=record.key.decode(),
                headers=dict(record.headers),
                sequence=int(record.headers[topics.NATS_SEQUENCE]),
            )
        await self.world.settled()

    def decided(self) -> list[Record]:
        return self._new(topics.INCOMPLETE)

    async def collect(self, *records: Record) -> None:
        """Give completion the decisions, all that are new if none is named."""
        for record in records or self.decided():
            assert record.key is not None
            account, headers = record.key.decode(), dict(record.headers)
            given = event(record.value, topic=record.topic, account=account, headers=headers)
            await self.completion.handle(Incoming.of(given))

    def _new(self, topic: str) -> list[Record]:
        records = self.world.producer.on(topic)
        seen, self._taken[topic] = self._taken.get(topic, 0), len(records)
        return records[seen:]

    def answers(self) -> list[dict[str, Any]]:
        return self.world.published("answer/1")

    def binding(self) -> BindingRow | None:
        value = self.world.store.get(binding_key(topics.SIGNALS_APPROVED, "s-1"), partition=PARTITION)
        return None if value is None else BindingRow.decode(value)


async def test_a_signal_whose_route_has_several_accounts_is_one_copy_for_each() -> None:
    house = await House().start()
    await house.send()
    copies = house.copies()
    assert [record.key for record in copies] == [b"a", b"b", b"c"]
    assert [record.partition for record in copies] == [partition_of(account, 8) for account in WEIGHTS]
    assert [record.headers[topics.WEIGHT] for record in copies] == [b"1", b"0.5", b"0.01"]
    assert {record.value for record in copies} == {json.dumps(WHOLE).encode()}


async def test_a_split_is_durable_before_a_copy_is_sent_and_holds_whatever_routing_says_later() -> None:
    house = await House().start()
    house.world.store.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.send()
    assert house.copies() == []
    house.world.store.refuse = None
    await house.send()
    first = house.copies()
    await house.restart(route={"a": "2"})
    await house.send()
    assert house.copies() == first


async def test_each_account_trades_its_copy_by_its_weight_factor_and_step() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    submits = {submit.account: submit for submit in house.world.terminals.submits}
    assert {account: submit.parameters.volume for account, submit in submits.items()} == {
        "a": Decimal("0.1"),
        "b": Decimal("0.15"),
    }
    for account, submit in submits.items():
        assert submit.order_id == order_id_for(house.world.settings.deployment, account, "s-1")


async def test_one_answer_says_what_became_of_every_copy_also_of_a_refused_one() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    asked = [(one["account"], one["weight"], one["decision"], one["reason"], one["volume"]) for one in answer["copies"]]
    assert asked == [
        ("a", "1", "accepted", None, "0.1"),
        ("b", "0.5", "accepted", None, "0.15"),
        ("c", "0.01", "refused", "guard", None),
    ]
    how = "0.1 asked, weight 0.01, volume_factor 1, volume_step 0.01"
    assert answer["copies"][2]["detail"] == f"volume: expected at least 0.01 lots, got 0: {how}"
    assert [bool(one["order_id"]) for one in answer["copies"]] == [True, True, False]
    assert (answer["signal_id"], answer["symbol"]) == ("s-1", "EURUSD")
    assert [subject for subject in house.world.subjects if "answered" in subject] == ["signals.answered.EURUSD"]


async def test_an_answer_waits_for_the_last_decision() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    *first, last = house.decided()
    await house.collect(*first)
    assert house.answers() == []
    await house.restart()
    await house.collect(last)
    assert [one["account"] for one in house.answers()[0]["copies"]] == ["a", "b", "c"]


async def test_decisions_that_are_redelivered_are_one_answer_in_every_order() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    one, two, three = house.decided()
    await house.collect(three, one, three, one, two)
    await house.restart()
    await house.collect(two, one, two, three)
    [answer] = house.answers()
    assert [each["account"] for each in answer["copies"]] == ["a", "b", "c"]


async def test_an_answer_that_was_not_said_before_a_crash_is_said_by_the_next_life() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    *first, last = house.decided()
    await house.collect(*first)
    house.world.store.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.collect(last)
    house.world.store.refuse = None
    await house.restart()
    assert house.answers() == []
    await house.collect(last)
    assert len(house.answers()) == 1


async def test_a_decision_is_told_again_when_the_worker_died_before_completion_had_it() -> None:
    house = await House().start()
    world = house.world
    await house.send()
    world.outlet.refuse = Transient("NATS is away")
    for record in house.copies():
        assert record.key is not None
        headers = dict(record.headers)
        await world.give(record.value, record.topic, "signal", account=record.key.decode(), headers=headers, sequence=5)
    await world.desk.drain()
    before = [record.value for record in house.decided()]
    world.outlet.refuse = None
    await house.restart()
    again = house.decided()
    assert sorted(record.value for record in again) == sorted(before)
    await house.collect(*again)
    assert len(house.answers()) == 1


async def test_a_copy_that_is_redelivered_is_decided_once_whatever_the_settings_say_by_then() -> None:
    house = await House().start()
    await house.send()
    copies = house.copies()
    await house.decide(*copies)
    await house.restart(route={"a": "9"})
    decided = house.decided()
    await house.decide(*copies)
    assert house.decided() == []
    await house.collect(*decided)
    assert len(house.world.terminals.submits) == 2
    assert len(house.answers()) == 1


async def test_the_same_signal_in_another_message_is_answered_no_second_time() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    await house.collect()
    await house.send(sequence=6)
    await house.send(sequence=7, volume="0.2")
    await house.decide()
    await house.collect()
    assert len(house.answers()) == 1
    decisions = Counter(one["decision"] for one in house.world.archived("signal/1"))
    assert decisions == {"accepted": 2, "refused": 1, "duplicate": 3, "conflict": 3}
    assert len(house.world.terminals.submits) == 2


async def test_an_account_that_knows_the_signal_already_answers_its_copy_as_a_duplicate() -> None:
    house = await House().start()
    order_id = await house.world.signal(account="a", sequence=1)
    await house.send()
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    first = answer["copies"][0]
    assert (first["account"], first["decision"], first["order_id"], first["volume"]) == (
        "a",
        "duplicate",
        order_id,
        None,
    )


async def test_a_duplicate_that_was_the_last_decision_is_answered_once_whatever_is_sent_later() -> None:
    house = await House({"a": "1", "b": "1"}).start()
    await house.world.signal(account="a", sequence=1)
    await house.send()
    await house.decide()
    known, first = sorted(house.decided(), key=lambda record: b"accepted" in record.value)
    await house.collect(first, known)
    house.world.later(1)
    await house.send(sequence=6)
    await house.decide()
    before = house.world.outlet.calls
    await house.collect()
    assert (house.world.outlet.calls, len(house.answers())) == (before, 1)


async def test_an_exit_for_nothing_is_answered_for_at_every_account_of_its_route() -> None:
    house = await House().start()
    await house.send(**EXIT)
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    said = [(one["account"], one["decision"], one["order_id"], one["volume"]) for one in answer["copies"]]
    assert said == [(account, "accepted", None, None) for account in WEIGHTS]
    assert {one["detail"] for one in answer["copies"]} == {
        "nothing to close: no lots of EURUSD of the strategy are open"
    }


async def test_an_exit_is_answered_for_when_it_is_done_and_by_no_duplicate_before() -> None:
    house = await House({"a": "0.5"}).start()
    await house.send()
    await house.send(signal_id="x-1", sequence=6, **EXIT)
    await house.send(signal_id="x-1", sequence=7, **EXIT)
    await house.decide()
    await house.collect()
    assert [one["signal_id"] for one in house.answers()] == ["s-1"], "the order that it waits for is under way"
    house.world.later(30)
    await house.world.tick()
    await house.collect()
    [_, answer] = house.answers()
    assert (answer["signal_id"], [(one["decision"], one["reason"]) for one in answer["copies"]]) == (
        "x-1",
        [("refused", "stale")],
    )


async def test_a_copy_that_can_not_be_read_is_refused_and_answered_at_every_account() -> None:
    house = await House().start()
    await house.send(price="soon")
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    assert [(one["decision"], one["reason"]) for one in answer["copies"]] == [("refused", "bad_field")] * 3


async def test_a_copy_by_which_a_rule_breaks_is_refused_and_the_others_are_traded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(draft: Draft, new: NewSignal) -> None:
        assert new.account != "b", "a rule of ours"
        decide_signal(draft, new)

    monkeypatch.setattr("streamapp.desk.decide.decide_signal", broken)
    house = await House().start()
    await house.send()
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    assert [(one["account"], one["reason"]) for one in answer["copies"]] == [
        ("a", None),
        ("b", "internal"),
        ("c", "guard"),
    ]
    assert [submit.account for submit in house.world.terminals.submits] == ["a"]


async def test_a_table_with_one_account_is_a_copy_with_its_weight_and_is_answered() -> None:
    house = await House({"a": "0.5"}).start()
    await house.send()
    await house.decide()
    await house.collect()
    [answer] = house.answers()
    assert [(one["account"], one["volume"]) for one in answer["copies"]] == [("a", "0.05")]


async def test_a_route_that_is_an_account_makes_no_copies_and_no_answer() -> None:
    house = await House("a").start()
    await house.send()
    [record] = house.copies()
    assert topics.WEIGHT not in record.headers
    await house.decide(record)
    assert (house.decided(), house.answers()) == ([], [])
    binding = house.binding()
    assert binding is not None
    assert (binding.account, binding.weights) == ("a", {})


async def test_a_decision_that_belongs_to_no_copy_is_a_dead_letter() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    one, *_ = house.decided()
    said = json.loads(one.value)
    stranger = json.dumps(said | {"copy": said["copy"] | {"account": "d"}}).encode()
    nobody = json.dumps(said | {"signal_id": "s-2"}).encode()
    headers = {topics.FAMILY: topics.COPY}
    for value in (stranger, nobody, b"{}"):
        await house.collect(Record(topics.INCOMPLETE, b"s-1", value, headers))
    reasons = [letter["reason"] for letter in house.world.dead_letters()]
    assert reasons == [b"wrong_account", b"wrong_account", b"invalid"]
    binding = house.binding()
    assert binding is not None
    assert binding.decided == {}


@pytest.mark.parametrize("weight", [b"0", b"-1", b"NaN", b"half"])
async def test_a_weight_that_is_none_is_a_dead_letter_and_its_account_trades_on(weight: bytes) -> None:
    house = await House().start()
    await house.send()
    one, *_ = house.copies()
    spoiled = Record(one.topic, one.key, one.value, dict(one.headers) | {topics.WEIGHT: weight}, one.partition)
    await house.decide(spoiled)
    [letter] = house.world.dead_letters()
    assert letter["reason"] == b"bad_weight"
    await house.decide(one)
    assert len(house.world.terminals.submits) == 1
