"""What crosses the pipe is what was sent, or a clear error."""

from __future__ import annotations

import asyncio
import io
import struct as binary
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.simulator.wire import FIELDS
from streamapp.terminal.pipe import calls, frames
from streamapp.terminal.pipe.answers import (
    Answered,
    DealsSeen,
    Exchange,
    Looked,
    Match,
    Page,
    Prepared,
    SearchResult,
    SendResult,
    Timed,
)
from streamapp.terminal.pipe.calls import (
    Call,
    DealWindow,
    Initialize,
    ListSymbols,
    Look,
    Prepare,
    ReadDeals,
    ReadEnds,
    Search,
    Send,
    Wanted,
)
from streamapp.terminal.pipe.frames import FrameError
from streamapp.terminal.pipe.structs import (
    AccountInfo,
    SymbolDetails,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
)
from tests.terminal.scripted import OWNER, SYMBOL, TERMINAL, deal, prepare, struct, tick

POSITION: dict[str, Any] = {"ticket": 78, "identifier": 77, "symbol": "EURUSD", "volume": 0.3}

SEND = Send({"action": 1, "symbol": "EURUSD", "volume": 0.1, "magic": 2**63 - 1}, 1e9, DealWindow(True, 1, 2))
SENT = SendResult(True, 10009, 5, 7, "done", {"retcode": 10009, "request": {"volume": 0.1}}, 1e9, None, ())
EXCHANGE = Exchange("order_send", {"volume": 0.1}, {"retcode": 10009}, (1, "Success"), 1e9, 5)
LOOKED = Looked(
    struct(TerminalInfo, TERMINAL),
    struct(AccountInfo, OWNER),
    struct(Tick, tick()),
    ("XAUUSD",),
    deals=Timed(DealsSeen(True, (struct(TradeDeal, deal(1, 2, 3, comment="größer \U0001f680")),), True, 2**62), 0.5),
    positions=Timed(Page((struct(TradePosition, POSITION),)), 0.1),
    orders=Timed(Page((struct(TradeOrder, POSITION | {"type": 2}),)), 0.1),
)
MATCH = Match("history_deals", 5, 7, "g1", "EURUSD", 0, 3, None, 0.1, 5, 1, may_be_part=True)
EXCHANGES: list[tuple[Call[Any], Any]] = [
    (Prepare("EURUSD", 77), prepare(tick=tick(), held=(0.1, 0.2), position=POSITION, deals=[deal(1, 2, 3)])),
    (SEND, SENT),
    (
        Look(ReadDeals(1, 2, 3, 4, wide=True), ReadEnds((1, 2)), positions=True, orders=True, symbols=("XAUUSD",)),
        LOOKED,
    ),
    (Search((Wanted(7, "g1", "EURUSD", "buy", 0.1, None),), 1, 2, 3), SearchResult(True, {"orders": 1}, (MATCH,))),
    (ListSymbols(None, "*USD*", "EURUSD", 100), Page((struct(SymbolDetails, SYMBOL | {"swap_long": float("inf")}),))),
]


def body(frame: bytes) -> bytes:
    found = frames.read(io.BytesIO(frame))
    assert found is not None
    return found


@pytest.mark.parametrize(("call", "found"), EXCHANGES, ids=lambda each: getattr(each, "name", ""))
def test_a_call_and_its_answer_arrive_as_they_were(call: Call[Any], found: Any) -> None:
    assert frames.decode_call(body(frames.encode_call(call))) == call
    answer = Answered(found, broken=(-10001, "lost"), error=(1, "Success"), log=(EXCHANGE,), took_s=0.1)
    assert frames.decode_answer(call, body(frames.encode_answer(call, answer))) == answer


@given(price=st.floats(allow_nan=False), comment=st.text(), magic=st.integers(-(2**63), 2**64 - 1))
def test_numbers_and_texts_of_every_kind_arrive(price: float, comment: str, magic: int) -> None:
    sent = Page((struct(TradePosition, {"sl": price, "comment": comment, "magic": magic}),))
    call = calls.ListPositions(None, None, None, 1)
    assert frames.decode_answer(call, body(frames.encode_answer(call, Answered(sent)))).value == sent


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (b"", "the name of a call"),
        (b"\xff\xfe", "the name of a call"),
        (b"send {}", "the name of a call"),
        (b"Prepare", "Prepare: Invalid JSON"),
        (b"Prepare {", "Prepare: Invalid JSON"),
        (b"Prepare []", "Prepare"),
        (b"Prepare {}", "symbol"),
        (b'Prepare {"symbol": 7}', "symbol"),
        (b'Prepare {"symbol": "EURUSD", "position_id": "77"}', "position_id"),
        (b'Prepare {"symbol": "EURUSD", "volume": 1}', "volume"),
        (b'Send {"request": {"lots": 0.1}, "not_after": 1}', "request.lots"),
        (b'Send {"request": {"volume": "0.1"}, "not_after": 1}', "request.volume"),
        (b'Send {"request": {"action": true}, "not_after": 1}', "request.action"),
    ],
)
def test_what_is_no_call_is_an_error_that_names_the_place(frame: bytes, named: str) -> None:
    with pytest.raises(FrameError, match=named):
        frames.decode_call(frame)


def test_an_error_never_shows_a_password() -> None:
    whole = body(frames.encode_call(Initialize(None, None, 42, "S", "s3cret", 1)))
    for broken in (whole[:-1], whole.replace(b"42", b'"42"'), whole.replace(b"{", b"[", 1)):
        with pytest.raises(FrameError) as error:
            frames.decode_call(broken)
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "found"),
        (b'{"found": null}', "nothing and no reason"),
        (b'{"found": {"sent": 1}}', "found.sent"),
        (b'{"found": {"sent": true, "retcode": 10009.5}}', "found.retcode"),
        (b'{"found": {"sent": true}, "error": [1]}', "error"),
        (b'{"found": {"sent": true}, "spare": 1}', "spare"),
    ],
)
def test_what_is_no_answer_to_the_call_is_an_error_that_names_the_place(answer: bytes, named: str) -> None:
    with pytest.raises(FrameError, match=named):
        frames.decode_answer(SEND, answer)


def test_a_failure_answers_every_call() -> None:
    failure = body(frames.encode_failure("no"))
    for call, _ in EXCHANGES:
        assert frames.decode_answer(call, failure).failure == "no"


def test_a_length_that_no_frame_has_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(FrameError, match="at most"):
        frames.read(io.BytesIO(b"HTTP/1.1 200 OK"))


@pytest.mark.parametrize("cut", [0, 3, 4, 10])
async def test_a_stream_that_ends_in_a_frame_has_none(cut: int) -> None:
    part = frames.encode_call(SEND)[:cut]
    assert frames.read(io.BytesIO(part)) is None
    stream = asyncio.StreamReader()
    stream.feed_data(part)
    stream.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await frames.receive(stream)


async def test_frames_are_read_one_after_another() -> None:
    whole = frames.encode_call(SEND) + frames.encode_call(Prepare("EURUSD"))
    assert binary.unpack(">I", whole[:4])[0] == len(frames.encode_call(SEND)) - 4
    stream = asyncio.StreamReader()
    stream.feed_data(whole)
    assert [type(frames.decode_call(await frames.receive(stream))) for _ in range(2)] == [Send, Prepare]


def test_every_struct_has_the_names_and_types_of_the_modules_own() -> None:
    kinds = {"i": "int", "f": "float", "s": "str", "b": "bool"}
    for model in (AccountInfo, SymbolDetails, TerminalInfo, Tick, TradeDeal, TradePosition):
        name = "SymbolInfo" if model is SymbolDetails else model.__name__
        own = {field: kinds.get(kind) for field, kind in FIELDS[name]}
        assert {field.name: field.type for field in fields(model)}.items() <= own.items()


def test_every_call_has_an_answer() -> None:
    assert {call.__name__ for call in frames._CALLS.values()} == {
        name
        for name, each in vars(calls).items()
        if isinstance(each, type) and issubclass(each, Call) and each is not Call
    }
    assert get_args(Answered[Prepared]) == (Prepared,)
