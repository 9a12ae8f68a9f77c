"""Exits that are being carried out: a signal that closes, reduces, reverses or modifies what is open.

An accepted exit is a goal in its signal's row until it is done, and is looked at again after every input of its
account, so that it sees the fills of orders that were under way when it came. Each position that it closes is an order
of its own, with an id derived from the signal's and the whole protocol of a submission; the terminal refuses one that
its position no longer holds, so an exit never opens. The sender is answered once, when all of its orders are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from decimal import Decimal

from streamapp.desk.acceptance import answer
from streamapp.desk.effects import Asker, Operate
from streamapp.desk.guards import broken_guard, overrides_of
from streamapp.desk.inputs import TRACE, Incoming, NewSignal, OperationAnswered
from streamapp.desk.state import Draft
from streamapp.desk.submission import create_order
from streamapp.domain.exits import MOST_PARTS, OPPOSITE, Goal, Holding, Part, in_parts, parts_of
from streamapp.domain.facts import OrderCreated
from streamapp.domain.orders import EXACT, exact_sum
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.signals import ACCEPTED, Verdict
from streamapp.domain.vocabulary import FINAL_STATUSES, Side, decimal_text
from streamapp.messages.operation import ProtectRequest
from streamapp.topics import SIGNALS_APPROVED
from tables.orders import OrderRow
from tables.positions import PositionRow
from tables.signals import SignalRow

REVERSED = "reverse"


def pursue(draft: Draft, *, asks_again: bool = False) -> None:
    """Take the next step with every exit of the account that is not done.

    Args:
        draft: The commit.
        asks_again: Ask the terminal once more for what it has not answered: silence is no outcome.
    """
    for signal_id in draft.account_row().goals:
        row = draft.signal(signal_id)
        assert row is not None
        assert row.goal is not None, "an account's goals are those of its signals' rows"
        pursuit = _Pursuit(draft, signal_id, row.goal)
        verdict = pursuit.step(asks_again=asks_again)
        if verdict is not None:
            _end(draft, signal_id, row, pursuit.goal, verdict)
        elif pursuit.goal is not row.goal:
            draft.put_signal(signal_id, row.model_copy(update={"goal": pursuit.goal}))


def close_in_parts(draft: Draft, order_id: str) -> None:
    """Make the orders that close what the terminal refused to close in one, because a symbol takes less in one order.

    Getting out is always possible: as many orders as it takes, ``MOST_PARTS`` at most, each with an id derived from the
    refused one's. Nothing happens to an order that opens, was refused for another reason, or has its parts already.
    """
    row = draft.order(order_id)
    created = None if row is None else row.state.created
    refused = None if row is None else row.state.attempts[row.state.last_attempt].refused
    if created is None or created.position_id is None or refused is None or refused.largest is None:
        return
    volume, largest = created.parameters.volume, refused.largest
    if created.intent == "open" or volume > largest * MOST_PARTS:
        return
    parts = {_part_id(draft, order_id, number): part for number, part in enumerate(in_parts(volume, largest), start=1)}
    if draft.order(next(iter(parts))) is not None:
        return
    for part_id, part in parts.items():
        parameters = created.parameters.model_copy(update={"volume": part})
        body = created.model_copy(
            update={"parameters": parameters, "parameters_hash": parameters_hash(parameters, created.position_id)}
        )
        create_order(draft, part_id, body, cause=f"order:{order_id}", trace=None)


def parts_made(draft: Draft, order_id: str) -> list[OrderRow]:
    """Return the parts that an order was made into because the symbol takes less in one; none if it was not."""
    rows, number = list[OrderRow](), 1
    while (row := draft.order(_part_id(draft, order_id, number))) is not None:
        rows.append(row)
        number += 1
    return rows


def _part_id(draft: Draft, order_id: str, number: int) -> str:
    return draft.order_id(f"{order_id}\x00part\x00{number}")


def lots_free_to_close(
    row: PositionRow, orders: Iterable[OrderRow], strategies: Collection[str] | None = None
) -> Decimal:
    """Return the lots of a position that are ours, or these strategies' alone, and that none of ``orders`` closes."""
    closers = list(orders)
    own = EXACT.subtract(row.state.share_of(strategies), _closing(closers, row.position_id, strategies))
    return min(own, EXACT.subtract(row.state.volume, _closing(closers, row.position_id, None)))


def free_lots(draft: Draft, row: PositionRow) -> Decimal:
    """Return the lots of a position that are ours, and that no order of this moment closes."""
    return lots_free_to_close(row, draft.orders_of(row.state.symbol))


def take_operation(draft: Draft, answer: OperationAnswered) -> None:
    """Note what the terminal answered for one position of an exit; nothing for one that is done."""
    signal_id, position_id = answer.asker.id, int(answer.asker.target)
    row = draft.signal(signal_id)
    if row is None or row.goal is None or row.goal.targets.get(position_id, "") is not None:
        return
    goal = row.goal.model_copy(update={"targets": {**row.goal.targets, position_id: answer.said}})
    draft.put_signal(signal_id, row.model_copy(update={"goal": goal}))


def _end(draft: Draft, signal_id: str, row: SignalRow, goal: Goal, verdict: Verdict) -> None:
    """Decide on the signal, once, and forget the goal."""
    order_id = goal.orders[0] if goal.orders else None
    if goal.how is not None:
        verdict = replace(verdict, detail="; ".join(text for text in (verdict.detail, goal.how) if text))
    ended = row.model_copy(update={"goal": None, "order_id": order_id, "order_ids": goal.orders, "verdict": verdict})
    draft.put_signal(signal_id, ended)
    account = draft.account_row()
    draft.put_account(account.model_copy(update={"goals": tuple(one for one in account.goals if one != signal_id)}))
    answer(draft, _message_of(draft, signal_id, row, goal), ended, verdict, at=draft.now)


def _message_of(draft: Draft, signal_id: str, row: SignalRow, goal: Goal) -> NewSignal:
    """Return the message that the exit came with, as far as an answer needs it."""
    headers = {} if goal.trace is None else {TRACE: goal.trace.encode()}
    payload, account = goal.payload.encode(), draft.account
    incoming = Incoming(payload, account.encode(), headers, SIGNALS_APPROVED, 0, row.stream_seq, goal.signal_at)
    return NewSignal(
        incoming,
        account,
        signal_id,
        signal_id,
        goal.parameters.symbol,
        goal.strategy,
        None,
        None,
        row.fingerprint,
        weight=goal.weight,
    )


class _Pursuit:
    """One exit in one commit; ``goal`` is as it has become."""

    def __init__(self, draft: Draft, signal_id: str, goal: Goal) -> None:
        self.goal = goal
        self._draft = draft
        self._signal_id = signal_id

    def step(self, *, asks_again: bool) -> Verdict | None:
        """Return how it ended, None if it goes on."""
        if self.goal.parameters.intent == "modify":
            return self._modify(asks_again=asks_again)
        late = self._draft.now >= self.goal.not_after
        if self._waits_for_fills() and not late:
            return None
        if not late:
            self._close()
        if self.goal.parameters.intent == "reverse":
            return self._reverse(late=late)
        return self._closed(late=late)

    # --- closing

    def _close(self) -> None:
        for part in parts_of(self._holdings(), self.goal.left):
            position = self._draft.position(part.position_id)
            assert position is not None
            number = len(self.goal.orders) + 1
            opened_by, strategy = position.state.opened_by, self.goal.strategy
            if self._strategies is None and opened_by is not None:
                strategy = opened_by.strategy
            self._create(f"{part.position_id}\x00{number}", part.side, part.volume, strategy, part)
            if self.goal.left is not None:
                self._change(left=EXACT.subtract(self.goal.left, part.volume))

    def _closed(self, *, late: bool) -> Verdict | None:
        goal = self.goal
        is_all, under_way = goal.left is not None and goal.left <= 0, self._under_way()
        if not is_all and not late and any(not self._is_own(row) for row in under_way):
            return None
        if not goal.orders:
            if late and under_way:
                names = ", ".join(row.order_id for row in under_way)
                return Verdict("refused", "stale", f"valid_until passed while these were under way: {names}")
            return self._nothing("to close")
        short = goal.parameters.volume is not None and not is_all
        detail = (
            f"no more is open: {decimal_text(goal.left or Decimal(0))} of the lots were not there" if short else None
        )
        return Verdict("accepted", None, detail)

    def _nothing(self, what: str) -> Verdict:
        asked = self.goal.parameters
        whose = (
            f"position {asked.position_id}" if asked.position_id is not None else f"{asked.symbol} of the {asked.scope}"
        )
        return Verdict("accepted", None, f"nothing {what}: no lots of {whose} are open")

    # --- reversing: what is open is closed, then as much is opened on the other side

    def _reverse(self, *, late: bool) -> Verdict | None:
        own = [row for order_id in self.goal.orders if (row := self._draft.order(order_id)) is not None]
        if any(row.status not in FINAL_STATUSES for row in own):
            return None
        if not own and not late and self._under_way():
            return None
        if not own:
            return (
                Verdict("refused", "stale", "valid_until passed before it could begin")
                if late
                else self._nothing("to reverse")
            )
        unfilled = next((row for row in own if row.status != "filled"), None)
        if unfilled is not None:
            return Verdict("refused", "not_closed", f"not reversed: order {unfilled.order_id} is {unfilled.status}")
        if late:
            return Verdict(
                "refused", "stale", "what was open is closed; valid_until passed before the other side was opened"
            )
        return self._open(own)

    def _open(self, closed: list[OrderRow]) -> Verdict:
        side = closed[0].state.created.parameters.side if closed[0].state.created else "buy"
        volume = self.goal.parameters.volume or exact_sum(row.state.filled for row in closed)
        draft, wanted = self._draft, self._parameters(side, volume, opens=True)
        halted = draft.halted
        guard = None if halted is not None else broken_guard(draft, wanted, self.goal.signal_at)
        if guard is not None or halted is not None:
            reason = "halted" if halted is not None else "guard"
            return Verdict("refused", reason, f"closed, and not opened on the other side: {halted or guard}")
        self._create(REVERSED, side, volume, self.goal.strategy, None)
        return ACCEPTED

    # --- modifying

    def _modify(self, *, asks_again: bool) -> Verdict | None:
        goal = self.goal
        if not goal.targets:
            if self._waits_for_fills() and self._draft.now < goal.not_after:
                return None
            targets = [holding.position_id for holding in self._holdings(all_lots=True)]
            if not targets:
                return self._nothing("to modify")
            self._change(targets=dict.fromkeys(targets))
            asks_again = True
        unanswered = [position_id for position_id, said in self.goal.targets.items() if said is None]
        if asks_again:
            self._draft.effects.extend(self._protect(position_id) for position_id in unanswered)
        if unanswered:
            return None
        failed = [f"position {position_id} {said}" for position_id, said in self.goal.targets.items() if said]
        if len(failed) == len(self.goal.targets):
            return Verdict("refused", "not_modified", "; ".join(failed)[:1000])
        done = [str(position_id) for position_id, said in self.goal.targets.items() if not said]
        detail = "; ".join((f"levels set at position {', '.join(done)}", *failed))
        return Verdict("accepted", None, detail[:1000])

    def _protect(self, position_id: int) -> Operate:
        draft, asked = self._draft, self.goal.parameters
        request_id = draft.order_id(f"{self._signal_id}\x00modify\x00{position_id}")
        return Operate(
            Asker("signal", self._signal_id, str(position_id)),
            ProtectRequest(
                request_id=request_id,
                account=draft.account,
                issued_by=f"signal {self._signal_id}"[:128],
                not_after=self.goal.not_after,
                position_id=position_id,
                stop_loss=asked.stop_loss,
                take_profit=asked.take_profit,
                limits=overrides_of(draft, asked.symbol),
            ),
        )

    # --- what is there

    @property
    def _strategies(self) -> list[str] | None:
        """Whose lots it is about; None: those of every order of ours."""
        asked = self.goal.parameters
        return [self.goal.strategy or ""] if asked.scope == "strategy" and asked.position_id is None else None

    def _positions(self) -> list[PositionRow]:
        asked = self.goal.parameters
        if asked.position_id is None:
            return self._draft.positions_of(asked.symbol)
        row = self._draft.position(asked.position_id)
        return [row] if row is not None and row.state.net else []

    def _holdings(self, *, all_lots: bool = False) -> list[Holding]:
        """Return what the exit may close now; with ``all_lots`` also what other orders are closing already."""
        asked, holdings = self.goal.parameters, list[Holding]()
        orders = [] if all_lots else self._draft.orders_of(asked.symbol)
        for row in self._positions():
            side = row.state.side
            if side is None or (asked.side is not None and OPPOSITE[side] != asked.side):
                continue
            lots = row.state.share_of(self._strategies)
            if not all_lots:
                if self._was_denied(row.position_id):
                    continue
                lots = lots_free_to_close(row, orders, self._strategies)
            if lots > 0:
                holdings.append(Holding(row.position_id, side, lots))
        return holdings

    def _was_denied(self, position_id: int) -> bool:
        """Return whether an order of this exit did not close what it was to close of a position: it is told by that."""
        own = (self._draft.order(order_id) for order_id in self.goal.orders)
        of_it = [row for row in own if row and row.state.created and row.state.created.position_id == position_id]
        return any(row.status in FINAL_STATUSES and row.status != "filled" for row in of_it)

    def _under_way(self) -> list[OrderRow]:
        """Return the orders that may still change what this exit is about: a pending one waits for its price."""
        return [row for row in self._draft.orders_of(self.goal.parameters.symbol) if self._concerns(row)]

    def _waits_for_fills(self) -> bool:
        """Return whether an order that opens is on its way; one in doubt may be for long, and getting out is urgent."""
        return any(_opens(row) and not _is_doubted(row) for row in self._under_way() if not self._is_own(row))

    def _concerns(self, row: OrderRow) -> bool:
        created, asked = row.state.created, self.goal.parameters
        assert created is not None
        if created.parameters.order_type != "market":
            return False
        if asked.position_id is not None:
            return created.position_id == asked.position_id
        return asked.scope == "symbol" or (created.strategy or "") == (self.goal.strategy or "")

    def _is_own(self, row: OrderRow) -> bool:
        return row.order_id in self.goal.orders

    # --- what is made

    def _create(self, name: str, side: Side, volume: Decimal, strategy: str | None, part: Part | None) -> None:
        draft, goal = self._draft, self.goal
        order_id = draft.order_id(f"{self._signal_id}\x00{name}")
        parameters = self._parameters(side, volume, opens=part is None)
        position_id = None if part is None else part.position_id
        created = OrderCreated(
            parameters=parameters,
            parameters_hash=parameters_hash(parameters, position_id),
            signal_id=self._signal_id,
            strategy=strategy,
            intent=goal.parameters.intent,
            position_id=position_id,
            expected_price=goal.expected_price,
            max_slippage_points=goal.max_slippage_points,
            signal_at=goal.signal_at,
            not_after=goal.not_after,
            executor=draft.policy.executor,
            metadata=goal.metadata,
        )
        cause = f"signal:{draft.account}:{self._signal_id}"
        create_order(draft, order_id, created, cause=cause, trace=goal.trace)
        self._change(orders=(*goal.orders, order_id))

    def _parameters(self, side: Side, volume: Decimal, *, opens: bool) -> OrderParameters:
        asked = self.goal.parameters
        return OrderParameters(
            symbol=asked.symbol,
            side=side,
            order_type="market",
            volume=volume,
            stop_loss=asked.stop_loss if opens else None,
            take_profit=asked.take_profit if opens else None,
            fill_policy=asked.fill_policy,
        )

    def _change(self, **changes: object) -> None:
        self.goal = self.goal.model_copy(update=changes)


def _closing(orders: Iterable[OrderRow], position_id: int, strategies: Collection[str] | None) -> Decimal:
    """Return the lots of a position that orders on their way are to close, those of some strategies or all."""
    known = ((row.state.created, row.state.filled) for row in orders)
    return exact_sum(
        EXACT.subtract(created.parameters.volume, filled)
        for created, filled in known
        if created is not None
        and created.position_id == position_id
        and (strategies is None or (created.strategy or "") in strategies)
    )


def _opens(row: OrderRow) -> bool:
    return row.state.created is not None and row.state.created.position_id is None


def _is_doubted(row: OrderRow) -> bool:
    return any(attempt.doubts and not attempt.closed for attempt in row.state.attempts.values())
