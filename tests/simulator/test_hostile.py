"""Input that nobody can use: it is refused by its name, and the market lives on for everybody else."""

from __future__ import annotations

import json
import math
import socket
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import MarketProcess, send

PENDING = {"action": mt5.TRADE_ACTION_PENDING, "price": 1.0, "type_filling": mt5.ORDER_FILLING_IOC}


@pytest.mark.parametrize(
    ("fields", "retcode"),
    [
        ({"sl": 1e300}, mt5.TRADE_RETCODE_INVALID_STOPS),
        ({"tp": 1e300}, mt5.TRADE_RETCODE_INVALID_STOPS),
        ({"volume": 1e300}, mt5.TRADE_RETCODE_INVALID_VOLUME),
        ({**PENDING, "type": mt5.ORDER_TYPE_BUY_LIMIT, "price": 1e300}, mt5.TRADE_RETCODE_INVALID_PRICE),
        ({**PENDING, "type": mt5.ORDER_TYPE_BUY_STOP_LIMIT, "price": 2.0, "stoplimit": 1e300},
         mt5.TRADE_RETCODE_INVALID_PRICE),
    ],
)  # fmt: skip
def test_a_number_that_no_market_has_is_refused(hedging: MarketProcess, fields: dict[str, Any], retcode: int) -> None:
    result = send(**fields)
    assert result is not None, mt5.last_error()
    assert result.retcode == retcode
    assert hedging.http("GET", "/health")["status"] == "ok"


def test_reckoning_with_such_a_number_harms_nobody(hedging: MarketProcess) -> None:
    for largest in (1e300, 9.9e8, float("nan")):
        assert math.isfinite(mt5.order_calc_margin(0, "EURUSD", largest, largest))
        assert math.isfinite(mt5.order_calc_profit(0, "EURUSD", largest, 1.1, largest))
    assert hedging.http("GET", "/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/faults", "[[]]", "a fault to be an object"),
        ("/faults", '[""]', "a fault to be an object"),
        ("/faults", "[" * 100_000, "RecursionError"),
        ("/faults", '{"kind": "hang", "params": 5}', "params to be an object"),
        ("/faults", '{"kind": "hang", "for_ms": Infinity}', "OverflowError"),
        ("/faults", '{"kind": "hang", "on": "order_sent"}', "on to be one of"),
        ("/faults", '{"kind": "timeout_late", "nth": 1, "params": {"ms": "soon"}}', "params.ms to be a number"),
        ("/faults", '{"kind": "partial", "nth": 1, "params": {"share": "half"}}', "params.share"),
        ("/faults", '{"kind": "partial", "nth": 1, "params": {"share": 2}}', "params.share"),
        ("/faults", '{"kind": "visibility_lag", "params": {"orders": "late"}}', "params.orders"),
        ("/faults", '{"kind": "comment_rewrite", "params": {"how": "twice"}}', "params.how"),
        (
            "/faults",
            '{"kind": "foreign_activity", "nth": 1, "params": {"action": "correct", "price": "x"}}',
            "params.price",
        ),
        ("/faults", '{"kind": "foreign_activity", "params": {"action": "close", "volume": "-5"}}', "params.volume"),
        ("/quotes/EURUSD", '{"bid": "NaN", "ask": "NaN"}', "InvalidOperation"),
        ("/quotes/EURUSD", '{"bid": "1e50", "ask": "1e50"}', "0 < bid <= ask"),
        ("/quotes/EURUSD", "[]", "TypeError"),
    ],
)
def test_a_control_request_that_makes_no_sense_is_refused(
    hedging: MarketProcess, path: str, body: str, words: str
) -> None:
    answer = _http(hedging, f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert b" 400 " in answer.splitlines()[0]
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error.startswith("expected ")
    assert words in error
    assert not hedging.http("GET", "/faults")
    assert send().retcode == mt5.TRADE_RETCODE_DONE


@pytest.mark.parametrize(
    ("head", "status"),
    [("GET http://[x HTTP/1.1", b"400"), ("POST /faults HTTP/1.1\r\nContent-Length: \xb2", b"413")],
)
def test_a_head_that_makes_no_sense_is_refused(hedging: MarketProcess, head: str, status: bytes) -> None:
    assert _http(hedging, f"{head}\r\n\r\n").split(b" ")[1] == status
    assert hedging.http("GET", "/health")["status"] == "ok"


@pytest.mark.parametrize("ms", ["-1", "1e30", "Infinity"])
def test_a_virtual_clock_goes_forward_and_not_for_ever(start_market: Any, ms: str) -> None:
    market = start_market("--virtual-clock")
    before = market.http("GET", "/clock")
    body = f'{{"advance_ms": {ms}}}'
    answer = _http(market, f"POST /clock HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert b" 400 " in answer.splitlines()[0]
    assert market.http("GET", "/clock") == before


def _http(market: MarketProcess, text: str) -> bytes:
    host, _, port = market.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        parts = iter(lambda: connection.recv(65_536), b"")
        return b"".join(parts)
