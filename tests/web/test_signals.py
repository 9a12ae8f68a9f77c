"""``POST /signals/{source}`` on a real NATS: one signal for each alert, and its decision or what is known of it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from streamapp import subjects
from streamapp.settings import ExecutionSettings, WebSettings
from streamapp.tokens import TokensFile
from streamapp.web.access import COOKIE, CSRF, csrf_of
from tests.kit.command_answers import streams_at
from tests.kit.played_desk import PlayedDesk
from tests.kit.stacks import running
from tests.nats.servers import own_nats
from tests.web.group import Group, running_group

AT = datetime(2026, 11, 27, 3, tzinfo=UTC)
ALERT = {"time": "2026-11-27T10:00:00Z", "symbol": "EURUSD", "action": "buy", "volume": "0.10", "account": "a"}
ROUTING = {"spread/*": {"a": 1, "b": 1}}


class House:
    """Two workers, their NATS, who answers on it, and tokens.

    Attributes:
        secrets: By role.
    """

    def __init__(self, group: Group, file: TokensFile) -> None:
        self.group = group
        roles = ("signals:tradingview", "signals:metaapi", "read", "trade", "admin")
        self.secrets = {role: file.add(f"the-{role.replace(':', '-')}", role, AT) for role in roles}
        self.secret = self.secrets["signals:tradingview"]
        self.desk: PlayedDesk

    async def post(
        self, body: Any, *, source: str = "tradingview", token: str | None = None, worker: int = 0, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        sent = options if "data" in options else {"json": body, **options}
        return await self.group.ask("POST", self.group.workers[worker], f"/signals/{source}", token, **sent)

    def counted(self) -> list[tuple[str, str]]:
        return self.group.workers[0].web_signals

    async def stored(self) -> list[str]:
        """Return all that the stream has of signals, as text."""
        js = self.group.nats.jetstream()
        state = (await js.stream_info(subjects.EXECUTION_IN.name)).state
        sequences = range(state.first_seq, state.last_seq + 1) if state.messages else ()
        messages = [await js.get_msg(subjects.EXECUTION_IN.name, sequence) for sequence in sequences]
        return [f"{message.subject} {message.headers} {(message.data or b'').decode()}" for message in messages]


@pytest.fixture
async def now() -> list[float]:
    return [1000.0]


@pytest.fixture
async def house(nats_of_this_module: str, tmp_path: Path, now: list[float]) -> AsyncIterator[House]:
    file = TokensFile(tmp_path / "tokens")
    options = {
        "web": WebSettings(signals_per_minute=20, answer_s=5),
        "execution": ExecutionSettings.model_validate({"routing": ROUTING}),
    }
    async with (
        streams_at(nats_of_this_module) as client,
        running_group(tokens_file=file.path, clock=lambda: now[0], **options) as group,
    ):
        group.nats = client
        house = House(group, file)
        house.desk = PlayedDesk(client)
        await house.desk.listen()
        yield house
        for stream in subjects.STREAMS:  # with the ids of messages that they remember
            await client.jetstream().delete_stream(stream.name)


async def test_an_alert_is_one_approved_signal_and_is_answered_with_the_decision(house: House) -> None:
    status, answer, headers = await house.post(ALERT | {"price": 1.0950}, token=house.secret)
    assert (status, answer["schema"], answer["order_ids"]) == (200, "accepted/1", ["o-1"])
    assert headers["Content-Type"].startswith("application/json")
    (heard,) = house.desk.heard
    assert (heard["status"], heard["side"], heard["order_type"]) == ("approved", "buy", "market")
    assert (heard["volume"], heard["price"], heard["approved_at"]) == ("0.10", "1.095", ALERT["time"])
    assert heard["metadata"] == {"source": "tradingview", "sender": "the-signals-tradingview", "fields": {}}
    house.desk.reason = "halted"
    status, answer, _ = await house.post(ALERT | {"id": "x"}, token=house.secrets["admin"])
    assert (status, answer["schema"], answer["reason"]) == (200, "refused/1", "halted")
    assert answer["signal_id"] == "tradingview:x"
    assert house.counted() == [("tradingview", "accepted"), ("tradingview", "refused")]


async def test_numbers_are_the_digits_that_came(house: House) -> None:
    body = (
        b'{"id": 1, "symbol": "EURUSD", "action": "buy", "volume": 0.10000000000000000001, "sl": 1.10, "account": "a"}'
    )
    types = {"Content-Type": "text/plain; charset=utf-8"}
    assert (await house.post(None, token=house.secret, data=body, headers=types))[0] == 200
    (heard,) = house.desk.heard
    assert (heard["volume"], heard["stop_loss"]) == ("0.10000000000000000001", "1.10")


async def test_the_same_alert_twice_at_any_worker_is_one_signal_with_one_answer(house: House) -> None:
    answers = [(await house.post(ALERT, token=house.secret, worker=worker))[:2] for worker in (0, 1, 0)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 200
    assert len(house.desk.heard) == 1
    await house.post(ALERT | {"time": "2026-11-27T10:00:01Z"}, token=house.secret)
    assert len(house.desk.heard) == 2


async def test_silence_is_202_with_where_to_ask_and_the_same_again_gets_the_decision(house: House) -> None:
    house.group.workers[0].signals._settings = WebSettings(answer_s=0.3)
    house.desk.silent = True
    status, answer, headers = await house.post(ALERT | {"id": "x"}, token=house.secret)
    assert (status, answer["signal_id"]) == (202, "tradingview:x")
    assert headers["Location"] == answer["orders"] == "../orders?signal_id=tradingview%3Ax"
    assert "That is no outcome" in answer["detail"]
    assert house.counted() == [("tradingview", "undecided")]
    await house.desk.wake()
    status, answer, _ = await house.post(ALERT | {"id": "x"}, token=house.secret, worker=1)
    assert (status, answer["schema"]) == (200, "accepted/1")
    assert len(house.desk.heard) == 1


async def test_a_signal_of_several_accounts_is_answered_with_all_of_its_copies(house: House) -> None:
    house.desk.copies = 2
    body = {name: value for name, value in ALERT.items() if name != "account"} | {"strategy": "spread"}
    status, answer, _ = await house.post(body, token=house.secret)
    assert (status, answer["schema"]) == (200, "answer/1")
    assert [copy["account"] for copy in answer["copies"]] == ["a0", "a1"]
    assert house.counted() == [("tradingview", "split")]


async def test_without_its_token_nothing_is_sent(house: House) -> None:
    for source in ("tradingview", "metaapi", "nobody"):
        status, answer, headers = await house.post(ALERT, source=source)
        assert (status, answer["reason"]) == (401, "no_token")
        assert headers["WWW-Authenticate"].startswith("Bearer")
    assert "or a token in the field secret" in (await house.post(ALERT))[1]["error"]
    for role in ("signals:metaapi", "read", "trade"):
        secret = house.secrets[role]
        for body, token in ((ALERT, secret), (ALERT | {"secret": secret}, None)):
            status, answer, _ = await house.post(body, token=token)
            assert (status, answer["reason"]) == (403, "role")
            assert (
                f"expected a token of role signals:tradingview, got the-{role.replace(':', '-')}'s" in answer["error"]
            )
    assert (await house.post(ALERT, token="wrong"))[1]["reason"] == "wrong_token"
    assert (await house.post(ALERT | {"secret": "wrong"}))[1]["reason"] == "wrong_token"
    assert (await house.post(ALERT | {"secret": ["x"]}))[1]["reason"] == "no_token"
    status, answer, _ = await house.post(ALERT, source="nobody", token=house.secrets["admin"])
    assert (status, answer["reason"]) == (404, "unknown_source")
    assert "expected a source of metaapi, tradingview, got 'nobody'" in answer["error"]
    assert await house.stored() == []
    assert house.counted()[-1] == ("unknown", "unknown_source")
    assert {source for source, _ in house.counted()} == {"tradingview", "metaapi", "unknown"}
    assert {"no_token", "role", "wrong_token"} <= {answer for _, answer in house.counted()}


async def test_a_sender_can_do_nothing_else(house: House) -> None:
    worker = house.group.workers[0]
    for method, path in (("GET", "/orders"), ("GET", "/events"), ("POST", "/commands/account.halt")):
        status, answer, _ = await house.group.ask(method, worker, path, house.secret, json={})
        assert (status, answer["reason"]) == (403, "role")


async def test_a_browser_that_is_logged_in_sends_no_signal(house: House) -> None:
    admin = house.secrets["admin"]
    headers = {"Cookie": f"{COOKIE}={admin}", CSRF: csrf_of(admin), "Content-Type": "text/plain"}
    status, answer, _ = await house.post(None, data=json.dumps(ALERT), headers=headers)
    assert (status, answer["reason"]) == (401, "no_token")
    assert await house.stored() == []


async def test_a_secret_in_the_body_is_a_token_and_goes_nowhere(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status, answer, _ = await house.post(ALERT | {"secret": house.secret})
    assert (status, answer["schema"]) == (200, "accepted/1")
    spread = ALERT | {"id": "spread-out", "comment": f"with {house.secret}"}
    for body, token in ((spread | {"secret": house.secret}, None), (spread, house.secret)):
        status, answer, _ = await house.post(body, token=token)
        assert (status, answer["reason"]) == (400, "bad_field")
        assert "expected the token in its place alone" in answer["error"]
    status, answer, _ = await house.post(ALERT | {"action": "up", "secret": house.secret})
    assert status == 400
    (stored,) = await house.stored()
    for text in (stored, str(answer), caplog.text):
        assert house.secret not in text
    assert "by the-signals-tradingview from 127.0.0.1: answered" in caplog.text


@pytest.mark.parametrize(
    ("data", "content_type", "status", "words"),
    [
        (b"buy EURUSD", "text/plain", 400, "not_json: expected JSON"),
        (b"", "application/json", 400, "not_json: expected JSON"),
        (b"[1]", "application/json", 400, "not_an_object: expected a JSON object, got list"),
        (b'{"volume": NaN}', "text/plain", 400, "not_json: .*NaN is not JSON"),
        (b"\xff\xfe", "text/plain", 400, "not_json"),
        (b"symbol=EURUSD", "application/x-www-form-urlencoded", 415, "content_type: expected Content-Type: "),
        (b"x", "multipart/form-data; boundary=x", 415, "content_type"),
        (b'{"id": 1, "symbol": "EURUSD", "action": "buy"}', "application/json", 400, "bad_field: volume"),
        (b'{"symbol": "EURUSD", "action": "buy", "volume": 1}', "application/json", 400, "no_signal_id"),
        (b'{"id": 1, "tif": "day"}', "application/json", 400, "bad_field: tif: not read by the source tradingview"),
        (b" " * 20_000, "application/json", 413, "too_long: expected 16384 bytes at most"),
    ],
)
async def test_a_body_of_another_shape_is_refused_in_words_and_nothing_is_sent(
    house: House, data: bytes, content_type: str, status: int, words: str
) -> None:
    headers = {"Content-Type": content_type}
    got, answer, _ = await house.post(None, token=house.secret, data=data, headers=headers)
    assert got == status
    told = f"{answer['reason']}: {answer['error']}"
    assert words.partition(".*")[0] in told
    assert words.rpartition(".*")[2] in told
    assert await house.stored() == []


async def test_a_symbol_of_any_characters_is_one_token_of_the_subject_and_text_in_the_answer(house: House) -> None:
    symbol = "<img src=x onerror=alert(1)>.>*"
    status, answer, headers = await house.post(ALERT | {"symbol": symbol}, token=house.secret)
    assert (status, answer["symbol"]) == (200, symbol)
    assert headers["X-Content-Type-Options"] == "nosniff"
    (stored,) = await house.stored()
    assert stored.startswith("signals.approved.%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%2E%3E%2A ")


async def test_no_text_of_a_sender_ends_a_header_or_a_line_of_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert (await house.post(ALERT | {"account": "a\r\nNats-Rollup: all"}, token=house.secret))[0] == 200
    (stored,) = await house.stored()
    assert "'Nats-Msg-Id': 'signal:a%0D%0ANats-Rollup%3A%20all:tradingview:" in stored
    assert "'Nats-Rollup'" not in stored
    status, answer, _ = await house.post(ALERT, source="a%0Aforged", token=house.secret)
    assert (status, answer["reason"]) == (403, "role")
    assert "forged" not in answer["error"]
    assert not [
        record for record in caplog.records if record.name.startswith("streamapp") and "forged" in record.message
    ]


async def test_too_many_signals_of_one_token_are_429_and_others_go_on(house: House, now: list[float]) -> None:
    for _ in range(20):
        assert (await house.post({}, token=house.secret))[0] == 400
    status, answer, headers = await house.post(ALERT, token=house.secret)
    assert (status, answer["reason"], headers["Retry-After"]) == (429, "too_many", "3")
    assert (await house.post(ALERT, token=house.secrets["admin"]))[0] == 200
    now[0] += 3
    assert (await house.post(ALERT, token=house.secret))[0] == 200


async def test_only_posting_is_possible(house: House) -> None:
    for method in ("GET", "PUT", "DELETE"):
        status, _, _ = await house.group.ask(
            method, house.group.workers[0], "/signals/tradingview", house.secrets["admin"]
        )
        assert status == 405


async def test_behind_a_sub_path_the_place_to_ask_is_below_it(house: House) -> None:
    house.group.workers[0].signals._settings = WebSettings(answer_s=0.1)
    house.desk.silent = True
    _, _, headers = await house.post(ALERT | {"id": "x"}, token=house.secret)
    public = URL("https://desk.example/streamapp/signals/tradingview")
    assert public.join(URL(headers["Location"], encoded=True)).path == "/streamapp/orders"


async def test_a_nats_that_is_away_is_503_and_nothing_is_sent_when_it_comes_back(tmp_path: Path) -> None:
    file, spec = TokensFile(tmp_path / "tokens"), own_nats(tmp_path)
    async with running_group(tokens_file=file.path, web=WebSettings(answer_s=0.5)) as group:
        house = House(group, file)
        status, answer, headers = await house.post(ALERT, token=house.secret)  # before the first connection
        assert (status, answer["reason"], headers["Retry-After"]) == (503, "not_stored", "1")
        with running(spec, tmp_path) as server:
            async with streams_at(spec.address) as client:
                group.nats = client
                server.stop()
                status, answer, _ = await house.post(ALERT | {"id": "lost"}, token=house.secret)
                assert (status, answer["reason"], answer["signal_id"]) == (503, "not_stored", "tradingview:lost")
                assert "Send it again with the same signal_id: it is traded once" in answer["error"]
                assert house.counted() == [("tradingview", "not_stored")] * 2
                with running(spec, tmp_path):
                    status = 503
                    while status == 503:
                        status, answer, _ = await house.post(ALERT | {"id": "found"}, token=house.secret)
                    assert status == 202  # nobody answers here
                    (stored,) = await house.stored()
                    assert "tradingview:found" in stored
