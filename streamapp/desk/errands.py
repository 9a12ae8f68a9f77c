"""Errands: commands that are being carried out, a step after every input of their account.

What a terminal must do is an effect that is asked again until there is a final answer; a close is an order of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from streamapp import subjects
from streamapp.desk.alarms import acknowledge_alarm
from streamapp.desk.effects import Asker, Operate
from streamapp.desk.exits import free_lots, parts_made
from streamapp.desk.guards import overrides_of
from streamapp.desk.limits import set_limits
from streamapp.desk.projection import add_fact
from streamapp.desk.reconciliation import settle_break
from streamapp.desk.state import Draft
from streamapp.desk.submission import call_off, create_order
from streamapp.desk.trading import set_trading
from streamapp.domain.exits import OPPOSITE
from streamapp.domain.facts import CancelRequested, OrderCreated, make_fact
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.signals import LAST_MOMENT
from streamapp.domain.status import reason_of
from streamapp.domain.trading import TradingWord
from streamapp.domain.vocabulary import FINAL_STATUSES
from streamapp.messages.command import (
    CommandContent,
    CommandName,
    CommandResultMessage,
    CommandState,
)
from streamapp.messages.operation import CancelRequest, ModifyRequest, OperationRequest, ProtectRequest, ResumeRequest
from tables.commands import CommandRow
from tables.orders import HANDED_OVER, OrderRow
from tables.positions import PositionRow

ROOM_BYTES = 64 << 10
"""What one commit says at most before its commands wait for the next input, which the timer gives: rows, facts and
words are four times as much, and what has half a commit is said before anything is added to it."""
AGAIN = timedelta(seconds=30)
"""After so long flatten tries again what was refused: a session may be shut, a price too near the market."""
MOST_SHOWN = 200
"""Orders that a command's row names, the newest: flatten may try for days."""

_COVERED: dict[CommandName, frozenset[CommandName]] = {
    "account.halt": frozenset({"account.resume"}),
    "account.reduce": frozenset({"account.resume"}),
    "account.resume": frozenset({"account.resume", "account.flatten", "account.cancel_all"}),
    "account.cancel_all": frozenset({"account.cancel_all"}),
    "account.flatten": frozenset({"account.resume", "account.flatten", "account.cancel_all"}),
}
"""What a command ends. Resume is the word to stop trying; what is given again does all that the earlier one still does;
and what stops an account is not undone by a resume of before it, which a terminal that was away has yet to hear."""
ELSEWHERE = "somebody else's connector has it"
_SETS: dict[CommandName, TradingWord] = {
    "account.halt": "halted",
    "account.reduce": "reducing",
    "account.resume": "trading",
    "account.flatten": "halted",
}


def tell(draft: Draft, row: CommandRow, *, at: datetime | None = None) -> None:
    """Say how a command stands: ``at``, if not since the row is so."""
    request = row.request
    asked = {name: getattr(request, name) for name in CommandContent.model_fields}
    result = CommandResultMessage(
        **asked,
        request_id=request.request_id,
        command=row.name,
        values=request.values.shown,
        state=row.state,
        revision=row.revision,
        why=row.why,
        detail=row.detail,
        order_ids=row.order_ids,
        stream_seq=row.stream_seq,
        at=at or row.at,
    )
    parts = ("command", subjects.token(draft.account), request.request_id, row.stream_seq, row.revision)
    draft.publish(result, subject=subjects.command_result(request.request_id), id_parts=parts, trace=row.trace)


class Errand:
    """One command in one commit; ``row`` is as it has become."""

    def __init__(self, draft: Draft, row: CommandRow) -> None:
        self.row = row
        self._draft = draft
        self._request = row.request
        self._by = row.request.issued_by
        self._asks_again = False

    def begin(self) -> None:
        """Take the first step."""
        name, draft = self.row.name, self._draft
        if (state := _SETS.get(name)) is not None:
            cause = self._request.reason or f"{name} {self._request.request_id}"
            set_trading(draft, state, cause, by=self._by)
        self._end_covered()
        match name:
            case "position.close":
                volume = self._request.values.volume
                if volume is None:
                    self._close_some(self._position(), free_lots(draft, self._position()), "close")
                else:
                    self._close_some(self._position(), volume, "reduce")
            case "account.cancel_all":
                self._change(targets=dict.fromkeys(row.order_id for row in draft.orders_of(None) if _may_work(row)))
            case "account.limits":
                values = self._request.values
                set_limits(draft, values.limits or {}, by=self._by, symbol=values.symbol)
            case "break.settle":
                settle_break(draft, self._request.values.break_id or "", self._request.reason, self._by)
            case "alarm.acknowledge":
                acknowledge_alarm(draft, self._request.values.alarm_id or "")
        self.step(asks_again=True)

    def step(self, *, asks_again: bool) -> None:
        """Take the next step; one that changes nothing writes nothing."""
        steps: dict[CommandName, Callable[[], None]] = {
            "order.cancel": self._cancel,
            "order.modify": self._modify,
            "position.close": self._closed,
            "position.modify": self._protect,
            "account.halt": self._done,
            "account.reduce": self._done,
            "account.resume": self._resume,
            "account.cancel_all": self._cancel_all,
            "account.flatten": self._flatten,
            "account.limits": self._done,
            "break.settle": self._done,
            "alarm.acknowledge": self._done,
        }
        self._asks_again = asks_again
        steps[self.row.name]()

    # --- orders

    def _cancel(self) -> None:
        order = self._order(self._request.order_id or "")
        if (said := self._cancelled(order)) is not None:
            status = self._order(order.order_id).status
            is_done = not said or status in FINAL_STATUSES - {"filled"}
            why = None if is_done else "over" if status == "filled" else said.partition(":")[0]
            self.end("done" if is_done else "failed", said or None, why=why)

    def _cancelled(self, order: OrderRow) -> str | None:
        """Return what became of cancelling an order, None while it is not known; a sentence if it works no longer."""
        if order.status in FINAL_STATUSES:
            return f"order {order.order_id} is {order.status}"
        if not has_room(self._draft):
            return None
        if order.standing == "held":
            call_off(self._draft, order, f"cancelled by {self._by or 'command'} before it was sent")
            return ""
        if is_elsewhere(self._draft, order):
            return f"unsupported: {ELSEWHERE}"
        target = self._try_of(order.order_id)
        if target not in self.row.targets:
            self._add_fact(order, CancelRequested(request_id=self._operation_id(target), issued_by=self._by))
        wanted = CancelRequest(**self._head(target), order_id=order.order_id)
        return self._asked(target, wanted, may_ask=order.standing == "recorded")

    def _try_of(self, order_id: str) -> str:
        """Return the name of the last try to cancel an order; flatten begins another after a refusal and a pause."""
        last = next((target for target in self.row.targets if target.partition(" ")[0] == order_id), order_id)
        if self.row.name != "account.flatten":
            return last
        tried = self.row.tried.get(order_id)
        if tried is not None and (not self.row.targets.get(last) or self._draft.now < tried + AGAIN):
            return last
        self._change(
            tried={**self.row.tried, order_id: self._draft.now},
            targets={target: said for target, said in self.row.targets.items() if target != last},
        )
        return f"{order_id} {int(last.partition(' ')[2] or 0) + 1}"

    def _modify(self) -> None:
        order = self._order(self._request.order_id or "")
        if order.status in FINAL_STATUSES:
            self.end("failed", f"order {order.order_id} is {order.status}", why="over")
            return
        values = self._request.values.model_dump(exclude_none=True)
        created = order.state.created
        limits = None if created is None else overrides_of(self._draft, created.parameters.symbol)
        wanted = ModifyRequest(**self._head(order.order_id), order_id=order.order_id, limits=limits, **values)
        self._end_as(self._asked(order.order_id, wanted, may_ask=order.standing == "recorded"))

    # --- positions

    def _protect(self) -> None:
        position_id = self._request.position_id or 0
        values = self._request.values.model_dump(exclude_none=True)
        position = self._draft.position(position_id)
        limits = None if position is None else overrides_of(self._draft, position.state.symbol)
        wanted = ProtectRequest(**self._head(str(position_id)), position_id=position_id, limits=limits, **values)
        self._end_as(self._asked(str(position_id), wanted))

    def _close_some(self, position: PositionRow, lots: Decimal, intent: Literal["close", "reduce"]) -> None:
        """Make an order that closes lots of a position."""
        draft, side, opened = self._draft, position.state.side, position.state.opened_by
        assert side is not None
        parameters = OrderParameters(
            symbol=position.state.symbol, side=OPPOSITE[side], order_type="market", volume=lots
        )
        number, request_id = self.row.made + 1, self._request.request_id
        order_id = draft.order_id(f"command\x00{request_id}\x00{number}")
        created = OrderCreated(
            parameters=parameters,
            parameters_hash=parameters_hash(parameters, position.position_id),
            signal_id=f"command {request_id}"[:128],
            strategy=None if opened is None else opened.strategy,
            intent=intent,
            position_id=position.position_id,
            signal_at=draft.now,
            not_after=self.row.not_after or draft.now + timedelta(seconds=draft.policy.rules.ttl_s),
            executor=draft.policy.executor,
        )
        create_order(draft, order_id, created, cause=f"command:{draft.account}:{request_id}", trace=self.row.trace)
        self._change(order_ids=(*self.row.order_ids, order_id)[-MOST_SHOWN:], made=number)

    def _closed(self) -> None:
        orders = [part for order_id in self.row.order_ids for part in self._with_parts(order_id)]
        if any(row.status not in FINAL_STATUSES for row in orders):
            return
        unfilled = [f"order {row.order_id} is {row.status}" for row in orders if row.status != "filled"]
        self.end("failed" if unfilled else "done", "; ".join(unfilled) or None, why="not_closed" if unfilled else None)

    # --- the account

    def _done(self) -> None:
        self.end("done", None)

    def _resume(self) -> None:
        """Let the terminal open again too: it halts by itself where it finds an order twice."""
        if not self._draft.policy.executes:
            self._done()
            return
        request = ResumeRequest(
            request_id=self._operation_id("resume"),
            account=self._draft.account,
            issued_by=self._by or "command",
        )
        self._end_as(self._asked(self._draft.account, request))

    def _cancel_all(self) -> None:
        said = {order_id: self._cancelled(self._order(order_id)) for order_id in self.row.targets}
        if all(each is not None for each in said.values()):
            left = [f"order {order_id}: {why}" for order_id, why in said.items() if why and self._works(order_id)]
            why = "not_cancelled" if left else None
            self.end("failed" if left else "done", "; ".join(left)[:1000] or None, why=why)

    def _flatten(self) -> None:
        """Cancel what works, close what is open, and again what did not close, until nothing is left."""
        positions = [row for row in self._draft.positions_of(None) if row.state.share_of(None) > 0]
        orders = self._draft.orders_of(None)
        if not positions and not orders:
            self.end("done", None)
            return
        if self.row.not_after is not None and self._draft.now >= self.row.not_after:
            self.end("failed", "valid_until passed before nothing was left", why="stale")
            return
        self._forget_what_is_over(orders, positions)
        said = {order.order_id: self._cancelled(order) for order in orders if _may_work(order) and not _closes(order)}
        waits = [f"order {order_id}: {why}" for order_id, why in said.items() if why and self._works(order_id)]
        waits += filter(None, map(self._try_to_close, positions))
        if (detail := "; ".join(waits)[:1000]) and detail != self.row.detail:
            self._tell(detail)

    def _try_to_close(self, position: PositionRow) -> str | None:
        """Close what of a position is not being closed; return why it waits, where the last try was not filled."""
        draft, name = self._draft, str(position.position_id)
        if not has_room(draft) or (free := free_lots(draft, position)) <= 0:
            return None
        last = self._unfilled(self.row.closers.get(name))
        if last is not None and draft.now < (last.state.latest_at or draft.now) + AGAIN:
            return f"position {name} of {position.state.symbol}: {reason_of(last.state) or last.status}"
        self._close_some(position, free, "close")
        self._change(closers={**self.row.closers, name: self.row.order_ids[-1]})
        return None

    def _unfilled(self, order_id: str | None) -> OrderRow | None:
        """Return the last of an order and its parts that was not filled, None if all were."""
        tried = [] if order_id is None else self._with_parts(order_id)
        return next((row for row in reversed(tried) if row.status != "filled"), None)

    def _forget_what_is_over(self, orders: list[OrderRow], positions: list[PositionRow]) -> None:
        works, is_open = {row.order_id for row in orders}, {str(row.position_id) for row in positions}
        targets = {name: said for name, said in self.row.targets.items() if name.partition(" ")[0] in works}
        tried = {name: at for name, at in self.row.tried.items() if name in works}
        closers = {name: order_id for name, order_id in self.row.closers.items() if name in is_open}
        kept = {"targets": targets, "tried": tried, "closers": closers}
        if any(getattr(self.row, name) != value for name, value in kept.items()):
            self._change(**kept)

    def _end_covered(self) -> None:
        """End the account's commands that this one ends, so that at most one of a kind goes on trying."""
        covered = _COVERED.get(self.row.name, frozenset())
        for request_id in self._draft.account_row().commands:
            row = self._draft.command(request_id)
            if row is not None and row.name in covered and request_id != self._request.request_id:
                Errand(self._draft, row).end(
                    "failed", f"ended by {self.row.name} {self._request.request_id}", why="ended"
                )

    # --- asking

    def _asked(self, target: str, wanted: OperationRequest | ResumeRequest, *, may_ask: bool = True) -> str | None:
        """Return what the terminal answered, empty for done, None while it has not; ask it where it is to be asked."""
        if target not in self.row.targets:
            self._change(targets={**self.row.targets, target: None})
            self._asks_again = True
        said = self.row.targets[target]
        if said is None and self._asks_again and may_ask:
            self._draft.effects.append(Operate(Asker("command", self._request.request_id, target), wanted))
        return said

    def _head(self, target: str) -> dict[str, Any]:
        return {
            "request_id": self._operation_id(target),
            "account": self._draft.account,
            "issued_by": self._by,
            "not_after": self.row.not_after or LAST_MOMENT,
        }

    def _operation_id(self, target: str) -> str:
        return self._draft.order_id(f"command\x00{self._request.request_id}\x00{target}")

    # --- what becomes of it

    def _end_as(self, said: str | None) -> None:
        if said is not None:
            why = said.partition(":")[0] or None
            self.end("failed" if said else "done", said.partition(": ")[2] or None, why=why)

    def end(self, state: CommandState, detail: str | None, *, why: str | None = None) -> None:
        """Say how it ended, and forget that it is under way."""
        self._tell(detail, state=state, why=why)
        account = self._draft.account_row()
        left = tuple(one for one in account.commands if one != self._request.request_id)
        self._draft.put_account(account.model_copy(update={"commands": left}))
        self._draft.counts["commands", self.row.name, state] += 1

    def _tell(self, detail: str | None, **changes: object) -> None:
        self._change(detail=detail, revision=self.row.revision + 1, at=self._draft.now, **changes)
        tell(self._draft, self.row)

    def _change(self, **changes: object) -> None:
        self.row = self.row.model_copy(update=changes)
        self._draft.put_command(self.row)

    # --- what is there

    def _order(self, order_id: str) -> OrderRow:
        row = self._draft.order(order_id)
        assert row is not None, "a command is about orders that are known"
        return row

    def _position(self) -> PositionRow:
        row = self._draft.position(self._request.position_id or 0)
        assert row is not None
        return row

    def _with_parts(self, order_id: str) -> list[OrderRow]:
        """Return an order as those that it was made into, which may have been made into smaller ones again."""
        parts = parts_made(self._draft, order_id)
        return [row for part in parts for row in self._with_parts(part.order_id)] or [self._order(order_id)]

    def _works(self, order_id: str) -> bool:
        return self._order(order_id).status not in FINAL_STATUSES

    def _add_fact(self, order: OrderRow, body: CancelRequested) -> None:
        cause = f"command:{self._draft.account}:{self._request.request_id}"
        add_fact(self._draft, make_fact(order.account, order.order_id, body, at=self._draft.now, causation_id=cause))


def _may_work(row: OrderRow) -> bool:
    """Return whether there is something to cancel: a market order that was sent is over by itself."""
    created = row.state.created
    return row.standing == "held" or (created is not None and created.parameters.order_type != "market")


def _closes(row: OrderRow) -> bool:
    created = row.state.created
    return created is not None and created.position_id is not None and created.parameters.order_type == "market"


def is_elsewhere(draft: Draft, row: OrderRow) -> bool:
    """Return whether somebody else's connector has the order: there is no terminal to ask about it."""
    return row.claim_epoch == HANDED_OVER or not draft.policy.executes


def has_room(draft: Draft) -> bool:
    """Return whether the commit may grow: one that is too large could never be written, and the input would stay."""
    return sum(len(each.message) for each in draft.publications) < ROOM_BYTES
