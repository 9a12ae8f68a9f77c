"""Commands: what a person or a risk engine wants done to orders, positions or the whole account, durably and once.

A command is decided once for its request_id, and is in its account's row until it is carried out: after every input of
the account the next step is taken, in the same commit. What a terminal must do is asked of it until it gives a final
answer: silence is no outcome. Repeated, a command is answered as it stands.
"""

from __future__ import annotations

from datetime import datetime

from streamapp import subjects
from streamapp.desk.alarms import standing_alarm
from streamapp.desk.errands import ELSEWHERE, Errand, has_room, is_elsewhere, tell
from streamapp.desk.exits import free_lots
from streamapp.desk.inputs import Incoming, NewCommand, OperationAnswered
from streamapp.desk.limits import changed_limits
from streamapp.desk.reconciliation import open_break
from streamapp.desk.state import Draft
from streamapp.domain.signals import is_forgotten, moment_after
from streamapp.domain.vocabulary import FINAL_STATUSES, decimal_text, time_text
from streamapp.errors import Unusable
from streamapp.messages.command import (
    CommandName,
    CommandRequest,
    is_of_account,
)
from streamapp.topics import NATS_SUBJECT
from tables.commands import CommandRow

MOST_COMMANDS = 500
"""Commands of one account that are not over: each is looked at after every input, and named in the account's row."""
RESERVED = 20
"""Places beyond them that only commands to the whole account take: getting out must be possible always."""
_AT_ONCE: frozenset[CommandName] = frozenset(
    {"account.halt", "account.reduce", "account.limits", "break.settle", "alarm.acknowledge"}
)
"""What is done as soon as it is accepted, and so takes no place among the commands under way."""


def take_command(draft: Draft, new: NewCommand) -> None:
    """Decide on the first message of a command, answer another one, and pass over a redelivery.

    Raises:
        Unusable: it names no account, and an order that nobody knows.
    """
    if not draft.account:
        raise Unusable("unknown_order", f"order_id: no order {new.request.order_id} is known here")
    row = draft.command(new.request.request_id)
    if row is None:
        _decide(draft, new)
    elif row.stream_seq != new.incoming.sequence:
        _answer_again(draft, new, row)


def pursue_commands(draft: Draft, *, asks_again: bool = False) -> None:
    """Take the next step with every command of the account that is not over.

    Args:
        draft: The commit.
        asks_again: Ask the terminal once more for what it has not answered.
    """
    for request_id in draft.account_row().commands:
        if not has_room(draft):
            return
        row = draft.command(request_id)
        assert row is not None, "an account's commands have their rows"
        if row.state == "accepted":  # one before it may have ended it
            Errand(draft, row).step(asks_again=asks_again)


def take_command_answer(draft: Draft, answer: OperationAnswered) -> None:
    """Note what the terminal answered for one target of a command; nothing for one that is over."""
    row = draft.command(answer.asker.id)
    if row is None or row.state != "accepted" or row.targets.get(answer.asker.target, "") is not None:
        return
    draft.put_command(row.model_copy(update={"targets": {**row.targets, answer.asker.target: answer.said}}))


def order_command(draft: Draft, name: CommandName, request: CommandRequest, *, sequence: int) -> None:
    """Give the account a command from within: a guard's. Known by its request_id like any other; nothing if it is."""
    if draft.command(request.request_id) is None:
        _accept(draft, name, request, sequence=sequence, trace=None, not_after=request.valid_until)


# --- deciding


def _decide(draft: Draft, new: NewCommand) -> None:
    request = new.request.model_copy(update={"account": draft.account})
    not_after = _not_after(draft, new)
    if (refusal := _refusal(draft, new, not_after)) is None:
        _accept(draft, new.name, request, sequence=new.incoming.sequence, trace=new.incoming.trace, not_after=not_after)
        return
    why, detail = refusal
    row = CommandRow(
        name=new.name,
        request=request,
        stream_seq=new.incoming.sequence,
        state="refused",
        why=why,
        detail=detail,
        not_after=not_after,
        trace=new.incoming.trace,
        at=draft.now,
    )
    draft.put_command(row)
    draft.counts["commands", new.name, "refused"] += 1
    tell(draft, row)


def _accept(
    draft: Draft,
    name: CommandName,
    request: CommandRequest,
    *,
    sequence: int,
    trace: str | None,
    not_after: datetime | None,
) -> None:
    row = CommandRow(
        name=name,
        request=request,
        stream_seq=sequence,
        state="accepted",
        not_after=not_after,
        trace=trace,
        at=draft.now,
    )
    draft.put_command(row)
    account = draft.account_row()
    draft.put_account(account.model_copy(update={"commands": (*account.commands, request.request_id)}))
    draft.counts["commands", name, "accepted"] += 1
    tell(draft, row)
    Errand(draft, row).begin()


def _not_after(draft: Draft, new: NewCommand) -> datetime | None:
    request = new.request
    if request.valid_until is not None or is_of_account(new.name):
        return request.valid_until
    return moment_after(request.issued_at or new.incoming.at, draft.policy.rules.ttl_s)


def _refusal(draft: Draft, new: NewCommand, not_after: datetime | None) -> tuple[str, str] | None:
    request = new.request
    if draft.account not in draft.policy.rules.accounts:
        return "unknown_account", f"account: expected a configured one, got {draft.account!r:.80}"
    if (lateness := _lateness(draft, new, not_after)) is not None:
        return "stale", lateness
    if new.name not in _AT_ONCE and len(draft.account_row().commands) >= _most(new.name):
        return "too_many", f"expected at most {_most(new.name)} commands of an account under way"
    if request.order_id is not None:
        return _refusal_of_order(draft, new, request.order_id)
    if request.position_id is not None:
        return _refusal_of_position(draft, new, request.position_id)
    return _refusal_of_values(draft, request)


def _lateness(draft: Draft, new: NewCommand, not_after: datetime | None) -> str | None:
    first = min(new.request.issued_at or new.incoming.at, new.incoming.at)
    if is_forgotten(first, draft.policy.rules, draft.now):
        return f"it came, or was issued, at {time_text(first)}: longer ago than commands are remembered"
    if not_after is None or not_after > draft.now:
        return None
    return f"valid_until: expected a time after {time_text(draft.now)}, got {time_text(not_after)}"


def _refusal_of_values(draft: Draft, request: CommandRequest) -> tuple[str, str] | None:
    try:
        if request.values.limits is not None:
            changed_limits(draft, request.values.limits, symbol=request.values.symbol)
        if request.values.break_id is not None:
            open_break(draft, request.values.break_id)
        if request.values.alarm_id is not None:
            standing_alarm(draft, request.values.alarm_id)
    except Unusable as error:
        return error.reason, error.detail
    return None


def _most(name: CommandName) -> int:
    return MOST_COMMANDS + (RESERVED if is_of_account(name) else 0)


def _refusal_of_order(draft: Draft, new: NewCommand, order_id: str) -> tuple[str, str] | None:
    row = draft.order(order_id)
    created = None if row is None else row.state.created
    if row is None or created is None or row.account != draft.account:
        return "unknown_order", f"order_id: no order {order_id} of account {draft.account} is known here"
    if not _is_permitted(draft, new.incoming, created.parameters.symbol):
        return "invalid", f"order_id: expected an order of the symbol in the subject, {order_id} is of another"
    if row.status in FINAL_STATUSES and (new.name == "order.modify" or row.status == "filled"):
        return "over", f"order {order_id} is {row.status}"
    if new.name == "order.modify" and is_elsewhere(draft, row):
        return "unsupported", f"order {order_id}: {ELSEWHERE}"
    if new.name == "order.modify" and created.parameters.order_type == "market":
        return "invalid", f"order {order_id} is a market order; position.modify sets the levels of its position"
    return None


def _refusal_of_position(draft: Draft, new: NewCommand, position_id: int) -> tuple[str, str] | None:
    row = draft.position(position_id)
    if row is None:
        return "unknown_position", f"position_id: no deal of position {position_id} is known here"
    state, asked = row.state, new.request.values.volume
    free = free_lots(draft, row)
    elsewhere = f"position_id: expected one of the symbol in the subject, {position_id} is of another"
    foreign = f"nothing of position {position_id} was opened by an order of ours, and it is never touched"
    unheard = "somebody else's connector can't be asked for the levels of a position"
    most = f"volume: expected {decimal_text(free)} lots at most, what is open and not being closed"
    closes = new.name == "position.close"
    checks = (
        ("invalid", not _is_permitted(draft, new.incoming, state.symbol), elsewhere),
        ("over", not state.net, f"position {position_id} is closed"),
        ("foreign_position", state.share_of(None) <= 0, foreign),
        ("unsupported", not closes and not draft.policy.executes, unheard),
        ("over", closes and free <= 0, f"all of position {position_id} is being closed already"),
        ("invalid", closes and asked is not None and asked > free, most),
    )
    return next(((why, detail) for why, holds, detail in checks if holds), None)


def _is_permitted(draft: Draft, incoming: Incoming, symbol: str) -> bool:
    """Return whether the subject, on which NATS permits to publish, names this symbol, the account, or neither."""
    subject = incoming.text(NATS_SUBJECT) or ""
    return subject.rpartition(".")[2] in {"-", "", subjects.token(symbol), subjects.token(draft.account)}


def _answer_again(draft: Draft, new: NewCommand, row: CommandRow) -> None:
    """Answer as the command stands, under the place of the new message; another content is a conflict."""
    request = new.request.model_copy(update={"account": draft.account})
    again = row.model_copy(update={"stream_seq": new.incoming.sequence, "trace": new.incoming.trace})
    if request.fingerprint != row.request.fingerprint or new.name != row.name:
        detail = f"request_id was used before with other content: {row.name} stands, {row.state}"
        changes = {"request": request, "name": new.name, "state": "refused", "why": "conflict", "detail": detail}
        again = again.model_copy(update={**changes, "revision": 1, "order_ids": (), "targets": {}})
    tell(draft, again, at=new.incoming.at)
