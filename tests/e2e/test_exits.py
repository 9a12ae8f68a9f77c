"""Signals of every intent on hedging and netting accounts, on the real stack; the broker's own book is the judge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.sources import settled_evidence
from streamapp.local.own import OwnStack
from streamapp.subjects import terminal
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

SETTINGS = """
[terminal]
settle_window_s = 3.0

[accounts.hedge]
login = 63000001

[accounts.net]
login = 63000002
margin_mode = "netting"
"""
EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None, "intent": "close"}


@pytest.fixture(scope="module")
def exits_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("exits"), SETTINGS) as stack:
        yield stack


@pytest.fixture
async def desk(exits_stack: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(exits_stack.settings) as desk:
        yield desk


async def at_broker(desk: Desk, account: str, symbol: str) -> list[dict[str, Any]]:
    """Return the positions of a symbol as the terminal shows them, the oldest first."""
    reply = await desk.nats.request(terminal(account, "positions"), json.dumps({"symbol": symbol}).encode(), timeout=30)
    positions = json.loads(reply.data)["content"]
    return sorted(positions, key=lambda each: int(each["position_id"]))


async def holds(desk: Desk, account: str, symbol: str, *lots: str) -> list[dict[str, Any]]:
    """Return the broker's positions once they have these signed lots, the oldest first."""
    wanted = list(map(Decimal, lots))

    async def as_wanted() -> list[dict[str, Any]] | None:
        found = await at_broker(desk, account, symbol)
        signed = [Decimal(each["volume"]) * (1 if each["side"] == "buy" else -1) for each in found]
        return found or [{}] if signed == wanted else None

    found: list[dict[str, Any]] = await eventually(as_wanted, f"{lots} of {symbol} at {account}")
    return found


async def filled(desk: Desk, name: str, account: str, symbol: str, **fields: Any) -> dict[str, Any]:
    await desk.send(name, account, symbol, **fields)
    return await desk.ended(name, "filled")


async def test_on_a_hedging_account_a_strategy_reduces_and_closes_what_it_opened_and_nothing_else(desk: Desk) -> None:
    for number, strategy in enumerate(("a", "a", "b")):
        await filled(desk, f"h-{number}", "hedge", "EURUSD", strategy=strategy)
    oldest, second, other = await holds(desk, "hedge", "EURUSD", "0.10", "0.10", "0.10")
    await desk.send("h-reduce", "hedge", **(EXIT | {"intent": "reduce", "volume": "0.13", "strategy": "a"}))
    left = await holds(desk, "hedge", "EURUSD", "0.07", "0.10")
    assert [each["position_id"] for each in left] == [second["position_id"], other["position_id"]]
    await desk.send("h-close", "hedge", **(EXIT | {"strategy": "a"}))
    (kept,) = await holds(desk, "hedge", "EURUSD", "0.10")
    assert kept["position_id"] == other["position_id"]
    closed = {int(oldest["position_id"]), int(second["position_id"])}
    await eventually(  # the broker shows it before its fill has come all the way
        lambda: {fill["position_id"] for fill in desk.fills if fill["entry"] == "out"} == closed,
        lambda: f"the fills of {closed} and no others; {desk.fills}",
    )
    await desk.send("h-all", "hedge", **(EXIT | {"scope": "symbol"}))
    await holds(desk, "hedge", "EURUSD")


async def test_a_reverse_is_refused_on_a_hedging_account_and_touches_nothing(desk: Desk) -> None:
    await filled(desk, "r-open", "hedge", "USDJPY", strategy="r")
    await desk.send("r-reverse", "hedge", "USDJPY", **(EXIT | {"intent": "reverse", "strategy": "r"}))
    refused = await eventually(lambda: desk.refusals.get(desk.signal_id("r-reverse")), "the refusal")
    assert (refused["reason"], "send a close and an open" in refused["detail"]) == ("bad_field", True)
    await holds(desk, "hedge", "USDJPY", "0.10")


async def test_an_exit_that_comes_with_its_entry_closes_it(desk: Desk) -> None:
    await desk.send("q-open", "hedge", "GBPUSD", strategy="quick")
    await desk.send("q-close", "hedge", "GBPUSD", **(EXIT | {"strategy": "quick"}))
    await desk.ended("q-open", "filled")
    await desk.ended("q-close", "filled")
    await holds(desk, "hedge", "GBPUSD")


async def test_a_position_is_closed_by_its_ticket_and_every_exit_has_its_answer(desk: Desk) -> None:
    for name in ("t-1", "t-2"):
        await filled(desk, name, "hedge", "AUDUSD", strategy="t")
    first, second = await holds(desk, "hedge", "AUDUSD", "0.10", "0.10")
    close = {"status": "approved", "account": "hedge", "symbol": "AUDUSD", "strategy": "t", "intent": "close"}
    said = {
        "all": {"ticket": first["position_id"]},
        "no such": {"position_id": 12345},
        "one": {"position_id": second["position_id"]},
        "nothing": {"strategy": "nobody"},
    }
    answers = {}
    for name, fields in said.items():
        payload = json.dumps(close | {"signal_id": desk.signal_id(f"t-{name.replace(' ', '-')}")} | fields).encode()
        answers[name] = (await desk.answer(await desk.publish("signals.approved.AUDUSD", payload)))[1]
    refused = {name: answer["reason"] for name, answer in answers.items() if answer["schema"] == "refused/1"}
    assert refused == {"all": "bad_field", "no such": "unknown_position"}
    assert [len(answers[name]["order_ids"]) for name in ("one", "nothing")] == [1, 0]
    assert answers["nothing"]["detail"] == "nothing to close: no lots of AUDUSD of the strategy are open"
    (left,) = await holds(desk, "hedge", "AUDUSD", "0.10")
    assert left["position_id"] == first["position_id"]


async def test_on_a_netting_account_an_exit_stops_at_zero_and_a_reverse_goes_beyond_it(desk: Desk) -> None:
    await filled(desk, "n-1", "net", "EURUSD", strategy="a")
    await filled(desk, "n-2", "net", "EURUSD", strategy="b", volume="0.20")
    await holds(desk, "net", "EURUSD", "0.30")
    await desk.send("n-close", "net", **(EXIT | {"strategy": "a", "volume": "5"}))
    await holds(desk, "net", "EURUSD", "0.20")
    await desk.send("n-reverse", "net", **(EXIT | {"intent": "reverse", "strategy": "b"}))
    await holds(desk, "net", "EURUSD", "-0.20")
    await desk.send("n-reduce", "net", **(EXIT | {"intent": "reduce", "strategy": "b", "volume": "0.05"}))
    await holds(desk, "net", "EURUSD", "-0.15")
    await desk.send("n-levels", "net", **(EXIT | {"intent": "modify", "strategy": "b", "stop_loss": "1.5"}))

    async def protected() -> bool:
        return [Decimal(each["stop_loss"] or 0) for each in await at_broker(desk, "net", "EURUSD")] == [Decimal("1.5")]

    await eventually(protected, "the stop loss of the net position")
    await desk.send("n-flat", "net", **(EXIT | {"strategy": "b"}))
    await holds(desk, "net", "EURUSD")


async def test_a_modify_sets_the_levels_at_the_broker(desk: Desk) -> None:
    await desk.pin("USDCHF", "0.90000", "0.90010")
    await filled(desk, "m-open", "hedge", "USDCHF", strategy="m")
    await desk.send(
        "m-levels", "hedge", "USDCHF", **(EXIT | {"intent": "modify", "stop_loss": "0.89", "strategy": "m"})
    )

    async def protected() -> bool:
        return [Decimal(each["stop_loss"] or 0) for each in await at_broker(desk, "hedge", "USDCHF")] == [
            Decimal("0.89")
        ]

    await eventually(protected, "the stop loss at the broker")
    await desk.send("m-bad", "hedge", "USDCHF", **(EXIT | {"intent": "modify", "stop_loss": "0.95", "strategy": "m"}))
    refused = await eventually(lambda: desk.refusals.get(desk.signal_id("m-bad")), "the refusal")
    assert refused["reason"] == "not_modified"
    assert "stop_loss" in refused["detail"]


async def test_every_witness_tells_the_same_story_of_all_of_them(desk: Desk) -> None:
    evidence = await settled_evidence(desk.settings, desk.nats, within_s=60.0)
    assert disagreements(evidence) == []
    assert unsettled(evidence) == []
    assert (await desk.health())["invariants"]["one_order_per_intent"]
