"""Every message on signals.approved has an answer, through the real NATS, mirror, desk and simulated broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from decimal import Decimal
from functools import partial
from typing import Any

import aiohttp
import pytest

import streamapp
from streamapp.clickhouse.client import ClickHouse
from streamapp.clock import utc_now
from streamapp.domain.vocabulary import time_text
from streamapp.local.own import OwnStack
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.tokens import TokensFile
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

SETTINGS = """
[execution]
signal_ttl_s = 240
[execution.value_names]
LONG = "buy"
[accounts.77]
login = 60000077
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokensFile:
    return TokensFile(tmp_path_factory.mktemp("tokens") / "tokens")


@pytest.fixture(scope="module")
def alert_secret(tokens: TokensFile) -> str:
    return tokens.add("chart", "signals:tradingview", utc_now())


@pytest.fixture(scope="module")
def answering_stack(
    tmp_path_factory: pytest.TempPathFactory, tokens: TokensFile, alert_secret: str
) -> Iterator[OwnStack]:
    web = f"[web]\ntokens_file = {json.dumps(str(tokens.path))}\n"
    with running_stack(tmp_path_factory.mktemp("answers"), SETTINGS + web) as stack:
        yield stack


@pytest.fixture
async def desk(answering_stack: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(answering_stack.settings) as desk:
        yield desk


async def test_every_message_has_one_answer_with_its_place_in_the_stream(desk: Desk) -> None:
    signal: dict[str, Any] = {"status": "Approved", "account": 77, "symbol": "EURUSD", "volume": 0.1}
    bought = signal | {"signal_id": 7001, "order_type": "ORDER_TYPE_BUY", "stop_loss": 0, "strategy": "", "price": None}
    sent = {
        "first": json.dumps(bought).encode(),
        "again": json.dumps(bought | {"order_type": "Market", "side": "Long"}).encode(),
        "a conflict": json.dumps(bought | {"volume": 0.2}).encode(),
        "a typo": json.dumps(bought | {"signal_id": "typo", "stoploss": 1.0}).encode(),
        "again, a typo": json.dumps(bought | {"signal_id": "typo", "stoploss": 1.0}).encode(),
        "another symbol": json.dumps(bought | {"signal_id": "symbol", "symbol": "GBPUSD"}).encode(),
        "a key twice": json.dumps(bought | {"signal_id": "twice"})[:-1].encode() + b', "volume": 10}',
        "an id of words": json.dumps(bought | {"signal_id": "Long Entry"}).encode(),
        "a text": json.dumps(json.dumps(bought)).encode(),
        "no number": b'{"signal_id": "nan", "volume": NaN}',
    }
    sequences = {name: await desk.publish("signals.approved.EURUSD", payload) for name, payload in sent.items()}
    answers = {name: await desk.answer(sequence) for name, sequence in sequences.items()}
    assert {name: (subject, said["signal_id"], said.get("reason")) for name, (subject, said) in answers.items()} == {
        "first": ("signals.accepted.EURUSD", "7001", None),
        "again": ("signals.accepted.EURUSD", "7001", None),
        "a conflict": ("signals.refused.EURUSD", "7001", "conflict"),
        "a typo": ("signals.refused.EURUSD", "typo", "bad_field"),
        "again, a typo": ("signals.refused.EURUSD", "typo", "bad_field"),
        "another symbol": ("signals.refused.EURUSD", "symbol", "bad_field"),
        "a key twice": ("signals.refused.EURUSD", "twice", "bad_field"),
        "an id of words": ("signals.refused.EURUSD", None, "no_signal_id"),
        "a text": ("signals.refused.EURUSD", None, "not_an_object"),
        "no number": ("signals.refused.EURUSD", None, "not_json"),
    }
    order_ids = {answers[name][1]["order_id"] for name in ("first", "again", "a conflict")}
    assert len(order_ids) == 1
    assert answers["again"][1]["detail"].endswith(f"message {sequences['first']} of the stream")
    told = answers["another symbol"][1]["detail"]
    assert told == "symbol: expected 'EURUSD' as in the subject signals.approved.EURUSD, got 'GBPUSD'"
    assert all(said["detail"] for subject, said in answers.values() if "refused" in subject)
    order_id = order_ids.pop()

    async def filled() -> dict[str, Any] | None:
        order = await desk.view(f"/orders/{order_id}")
        return order if order.get("status") == "filled" else None

    order = await eventually(filled, "the order filled")
    assert (order["side"], order["order_type"], order["stop_loss"]) == ("buy", "market", None)


async def test_a_program_sends_a_signal_hears_its_fill_and_halts_the_account(answering_stack: OwnStack) -> None:
    signal = {"signal_id": "p-1", "status": "approved", "account": 77, "symbol": "GBPUSD", "side": "buy"}
    async with streamapp.client(answering_stack.settings.nats_url) as client, aclosing(client.orders("p")) as orders:
        following = asyncio.ensure_future(anext(orders))
        answer = await client.send(signal | {"order_type": "market", "volume": Decimal("0.1")})
        assert isinstance(answer, AcceptedMessage)
        order = await following
        while order.order_id != answer.order_id or order.status != "filled":
            order = await anext(orders)
        assert order.filled_volume == Decimal("0.1")
        halted = await client.command("account.halt", account="77", reason="the program is over")
        assert halted.state == "done"
        refused = await client.send(signal | {"signal_id": "p-2", "order_type": "market", "volume": "0.1"})
        assert isinstance(refused, RefusedMessage)
        assert refused.reason == "halted"
        assert (await client.command("account.resume", account="77")).state == "done"


async def test_an_alert_of_tradingview_is_an_order_that_is_filled_and_its_secret_is_nowhere(
    answering_stack: OwnStack, alert_secret: str, desk: Desk
) -> None:
    url = f"{answering_stack.settings.trading_url}/signals/tradingview"
    alert = {"secret": alert_secret, "time": time_text(utc_now()), "account": "77", "strategy": "chart"}
    alert |= {"symbol": "USDJPY", "volume": "0.10"}
    bought = alert | {"action": "buy", "position": "long", "comment": "over the average"}
    closed = alert | {"action": "sell", "position": "flat"}
    strange = alert | {"symbol": "<img src=x onerror=alert(1)>", "action": "buy"}

    async def decided(body: dict[str, str]) -> dict[str, Any] | None:
        async with session.post(url, data=json.dumps(body), headers={"Content-Type": "text/plain"}) as answer:
            assert answer.status in {200, 202}, await answer.text()  # 202: undecided, so it is sent again
            return dict(await answer.json()) if answer.status == 200 else None

    async def ended(order_id: str) -> dict[str, Any] | None:
        order = await desk.view(f"/orders/{order_id}")
        return order if order.get("status") in {"filled", "failed"} else None

    async with aiohttp.ClientSession() as session:
        answers = [await eventually(partial(decided, each), "a decision") for each in (bought, bought, closed, strange)]
    assert answers[0] == answers[1]
    opened, out, odd = [
        await eventually(partial(ended, answer["order_ids"][0]), "the order's end") for answer in answers[1:]
    ]
    assert [opened[name] for name in ("status", "side", "strategy", "filled_volume")] == [
        *("filled", "buy", "chart", "0.1")
    ]
    assert [out[name] for name in ("status", "intent", "side")] == ["filled", "close", "sell"]
    assert out["position_id"] == opened["position_id"]
    assert (odd["status"], odd["symbol"]) == ("failed", strange["symbol"])

    js = desk.nats.jetstream()
    heard = [await js.get_msg("EXECUTION_IN", answer["stream_seq"]) for answer in answers]
    rows = ClickHouse.of(answering_stack.settings)

    async def kept() -> list[dict[str, Any]]:
        return await rows.query("SELECT * FROM signals WHERE position(payload, 'over the average') > 0")

    logs = [log.read_text() for log in (answering_stack.data / "logs").glob("*.log")]
    places = [*(str((message.headers, message.data)) for message in heard), *logs]
    places.append(str(await eventually(kept, "the signal in ClickHouse")))
    await rows.close()
    assert not [place for place in places if alert_secret in place]
