"""Calls and answers as frames: four bytes of length, then JSON; before a call's stands its name.

What comes in is of its model, to the last field, or a :class:`FrameError`.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, BinaryIO, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from typing_extensions import get_original_bases

from streamapp.errors import Definite
from streamapp.terminal.pipe.answers import Answered
from streamapp.terminal.pipe.calls import (
    Call,
    Initialize,
    ListOrders,
    ListPositions,
    ListSymbols,
    Look,
    OrderCheck,
    Prepare,
    ReadAccount,
    ReadMoreDeals,
    ReadOrder,
    ReadPast,
    ReadPosition,
    ReadQuote,
    ReadTicket,
    Search,
    Send,
    Setup,
)

A = TypeVar("A")

LARGEST_B = 256 * 1024 * 1024
"""No frame is so long: whoever reads such a length reads something else. A page of 1,000 rows has 300 kB."""
SHOWN = 80
"""Most characters of a wrong value in an error's text."""
_LENGTH = struct.Struct(">I")


class FrameError(Definite):
    """A frame is not what its reader expects; the same bytes never will be."""


def _answer_of(call: type[Call[Any]]) -> Any:
    (asked,) = (base for base in get_original_bases(call) if get_args(base))
    answered: Any = Answered
    return answered[get_args(asked)]


_CALLS: dict[str, type[Call[Any]]] = {
    call.__name__: call
    for call in (
        *(Setup, Initialize, ReadPast, Look, Prepare, OrderCheck, Send, ReadMoreDeals, ReadTicket, Search),
        *(ReadOrder, ReadPosition, ListPositions, ListOrders, ListSymbols, ReadAccount, ReadQuote),
    )
}
# Made at once, which takes 50 ms, so that no order waits for its own.
_CALL_CODECS = {name: TypeAdapter[Any](call) for name, call in _CALLS.items()}
_ANSWER_CODECS = {call: TypeAdapter[Any](_answer_of(call)) for call in _CALLS.values()}


def encode_call(call: Call[Any]) -> bytes:
    """Return a call as a frame."""
    return _frame(call.name.encode() + b" " + _CALL_CODECS[call.name].dump_json(call))


def decode_call(body: bytes) -> Call[Any]:
    """Return the call of a frame.

    Raises:
        FrameError: it is none.
    """
    name, _, fields = body.partition(b" ")
    codec = _CALL_CODECS.get(name.decode("ascii", "replace"))
    if codec is None:
        raise FrameError(f"expected the name of a call, got {name[:SHOWN]!r}")
    try:
        call: Call[Any] = codec.validate_json(fields)
    except ValidationError as error:
        raise _unreadable(error) from None
    return call


def encode_answer(call: Call[A], answer: Answered[A]) -> bytes:
    """Return the answer to a call as a frame."""
    # Whether the module's numbers are of their types is seen where they are read.
    return _frame(_ANSWER_CODECS[type(call)].dump_json(answer, warnings=False))


def encode_failure(why: str) -> bytes:
    """Return the frame that answers any call with nothing but a failure."""
    return encode_answer(Setup("", "", None), Answered(None, failure=why))


def decode_answer(call: Call[A], body: bytes) -> Answered[A]:
    """Return the answer to a call.

    Raises:
        FrameError: it is none to this one.
    """
    try:
        answer: Answered[A] = _ANSWER_CODECS[type(call)].validate_json(body)
    except ValidationError as error:
        raise _unreadable(error) from None
    if answer.found is None and not (answer.failure or answer.away):
        raise FrameError(f"expected what {call.name} comes to, got nothing and no reason")
    return answer


def _unreadable(error: ValidationError) -> FrameError:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # not even JSON; what it is may hold a password
        return FrameError(f"{error.title}: {first['msg']}")
    place = ".".join(str(part) for part in first["loc"])
    return FrameError(f"{error.title}: {place}: {first['msg']}, got {repr(first['input'])[:SHOWN]}")


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> bytes | None:
    """Return the body of the next frame, blocking; None at the end of the stream.

    Raises:
        FrameError: it has no length that a frame can have; nothing more can be read.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = stream.read(_length(head))
    return body if len(body) == _length(head) else None


async def receive(stream: asyncio.StreamReader) -> bytes:
    """Return the body of the next frame.

    Raises:
        asyncio.IncompleteReadError: the stream ended.
        FrameError: as :func:`read`.
    """
    return await stream.readexactly(_length(await stream.readexactly(_LENGTH.size)))


def _length(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > LARGEST_B:
        raise FrameError(f"expected a frame of at most {LARGEST_B} bytes, got a length of {length}")
    return int(length)
