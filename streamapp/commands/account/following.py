"""An operation, asked for until its outcome is a final one: always under one request_id, so it happens once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamapp.commands.account.asking import AskedTerminal
from streamapp.errors import Ambiguous, Transient
from streamapp.messages.operation import OperationReply, OperationRequest

AFTER_S = 10.0
"""So long after not_after it is still asked: an answer that was lost is mostly found within seconds. What needs a whole
settle window is asked for again by hand."""
PAUSE_S = 0.25
"""Between two askings. One that is not finished is answered after 5 s, so only what comes at once is slowed down."""
_MOVING = frozenset({"recorded", "started", "doubt"})


async def followed(
    terminal: AskedTerminal, kind: str, request: OperationRequest, valid_for_s: float, tell: Callable[[str], None]
) -> OperationReply | None:
    """Return the last answer, the final one if there is one before ``valid_for_s`` and a little are over.

    ``tell`` hears what is waited for, each time it is something else. None: no answer came, and it may have been heard.

    Raises:
        Transient: nobody was there to hear it the first time: nothing was asked.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + valid_for_s + AFTER_S
    reply: OperationReply | None = None
    heard, waits_for = False, ""
    while True:
        try:
            reply = await terminal.ask(kind, OperationReply, request)
            why = _state(reply)
        except (Transient, Ambiguous) as error:
            if isinstance(error, Transient) and not heard:
                raise
            why = str(error)
        heard = True
        if reply is not None and not _moves(reply):
            return reply
        if why != waits_for:
            tell(f"waiting: {why}")
            waits_for = why
        if loop.time() >= until:
            return reply
        await asyncio.sleep(PAUSE_S)


def is_done(reply: OperationReply) -> bool:
    """Return whether the broker did it: shows it, or took the order that it became."""
    return reply.outcome == "done" or _order_state(reply) == "result/accepted"


def told(reply: OperationReply) -> str:
    """Return an outcome as a person reads it."""
    words = [reply.outcome if reply.row is None else _state(reply)]
    words += [f"ticket {reply.ticket}"] if reply.ticket is not None else []
    words += [f"retcode {reply.retcode}"] if reply.retcode is not None else []
    text = ", ".join(words)
    return f"{text}: {reply.message}" if reply.message and reply.row is None else text


def _moves(reply: OperationReply) -> bool:
    if reply.outcome == "recorded":
        return reply.row is None or reply.row.state in _MOVING
    return reply.outcome == "unknown"


def _order_state(reply: OperationReply) -> str:
    row = reply.row if reply.outcome == "recorded" else None
    return "" if row is None else f"{row.state}/{row.reason}" if row.reason else row.state


def _state(reply: OperationReply) -> str:
    if reply.row is None:
        return reply.message or reply.outcome
    words = {
        "result/accepted": "done: the broker took it",
        "recorded": "recorded, not sent yet",
        "started": "being sent",
    }
    state = _order_state(reply)
    return f"order {reply.row.order_id} is {words.get(state, state)}"
