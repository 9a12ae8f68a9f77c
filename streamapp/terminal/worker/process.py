"""The process that holds the MT5 module: it reads a frame, makes the calls, writes a frame, and knows nothing else.

A process of its own because the module holds the GIL for a whole call and has no timeout: only from outside can it be
watched and ended (reference mt5 §1.1). Everything it writes on its standard output is a frame; whatever the module
prints goes to standard error.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from streamapp import crashpoints
from streamapp.mt5.retcodes import classify_opening
from streamapp.processes.children import private_pipes
from streamapp.processes.guard import die_with_parent
from streamapp.processes.locks import FileLock
from streamapp.terminal.pipe import frames
from streamapp.terminal.pipe.answers import (
    AccountSeen,
    Answered,
    Checked,
    Initialized,
    Looked,
    OrderSeen,
    Page,
    PositionSeen,
    Prepared,
    SendResult,
    Timed,
)
from streamapp.terminal.pipe.calls import (
    Call,
    DealWindow,
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
from streamapp.terminal.pipe.frames import FrameError
from streamapp.terminal.pipe.structs import AccountInfo, TerminalInfo, TradeOrder, TradePosition
from streamapp.terminal.worker import lookups, search
from streamapp.terminal.worker.history import History, look_at_past
from streamapp.terminal.worker.market import MarketReader
from streamapp.terminal.worker.mt5_client import Mt5Client, NotConnectedError, model_of, models_of

A = TypeVar("A")

OF_THE_ACCOUNT = frozenset[type[Call[Any]]](
    {
        *(ReadPast, ReadMoreDeals, ReadTicket, Search, ReadAccount, ReadOrder, ReadPosition),
        *(ListPositions, ListOrders, ListSymbols),
    }
)
"""What is read of the account: believed only if the terminal was connected to it just then. What a look reads is judged
by the permissions and the account that it brings along."""
MODULES = {"simulated": "streamapp.simulator.metatrader5", "MetaTrader5": "MetaTrader5"}


class Worker:
    """Makes the calls of the module that it is asked for, and answers."""

    def __init__(self, module: Any) -> None:
        self.calls = calls = Mt5Client(module)
        self.history = History(calls)
        self.market = MarketReader(calls)
        self._owner = (0, "")
        self._answers: dict[type[Call[Any]], Callable[[Any], Any]] = {
            Initialize: self.initialize,
            ReadPast: lambda call: look_at_past(calls, call),
            Look: self.look,
            Prepare: self.market.prepare,
            OrderCheck: self.check,
            Send: self.send,
            ReadMoreDeals: lambda _: self.history.more_deals(),
            ReadTicket: self.history.ticket,
            Search: lambda call: search.look(calls, call),
            ReadOrder: self.order,
            ReadPosition: self.position,
            ListPositions: lambda call: lookups.positions(calls, call),
            ListOrders: lambda call: lookups.orders(calls, call),
            ListSymbols: lambda call: lookups.symbols(calls, call),
            ReadAccount: self.account,
            ReadQuote: lambda call: self.market.quote(call.symbol),
        }

    def exchange(self, body: bytes) -> bytes:
        """Return the frame that answers a frame; one that is no call is answered so, and nothing is done."""
        try:
            call = frames.decode_call(body)
            self._answers[type(call)]
        except (FrameError, KeyError) as error:
            return frames.encode_failure(f"the worker was asked for nothing that it knows: {error}")
        return frames.encode_answer(call, self.answer(call))

    def answer(self, call: Call[A]) -> Answered[A]:
        """Return what a call comes to: value or failure, last error, and what the broker log must hold."""
        found, failure, away, error, began = None, None, None, None, time.perf_counter()
        try:
            found = self._answers[type(call)](call)
            error = self.calls.error  # of what was asked for, not of the look at whose it is
            away = self._not_our_account() if type(call) in OF_THE_ACCOUNT else None
        except NotConnectedError as lost:
            failure = str(lost)
        return Answered(
            found=None if away else found,
            failure=failure,
            away=away,
            broken=self.calls.broken,
            error=error or self.calls.error,
            log=self.calls.taken_notes(),
            took_s=time.perf_counter() - began,
        )

    def _not_our_account(self) -> str | None:
        """Return why what was read just now is not our account's, or not the broker's."""
        terminal, account, unread = self._owner_now()
        if terminal is None or account is None or not terminal["connected"]:
            return unread or "the terminal has no connection to the broker"
        other = self._other_than_ours(account)
        return other and f"the terminal is logged in to {other}"

    def initialize(self, call: Initialize) -> Initialized:
        """Connect to the terminal program and its account; the password stays out of the log."""
        self.calls.call("shutdown")
        self.market.forget()
        self.history.forget()
        self._owner = (call.login, call.server)
        named: dict[str, Any] = {"login": call.login, "server": call.server, "timeout": call.timeout_ms}
        if call.portable is not None:
            named["portable"] = call.portable
        request = {**named, "path": call.path}
        if call.password is not None:
            named["password"] = call.password
        place = [call.path] if call.path else []
        done = self.calls.call("initialize", *place, request=request, log=True, **named)
        self.calls.broken = None if done else self.calls.error
        return Initialized(bool(done))

    def look(self, call: Look) -> Looked:
        """Read what is asked for of the account, then permissions, account and the tick that shows the server's clock.

        In this order: what the terminal is connected to after them is what they were read of.
        """
        deals = None if call.deals is None else _timed(self.history.deals, call.deals)
        ends = None if call.ends is None else _timed(self.history.ended, call.ends)
        positions = _timed(self._positions) if call.positions else None
        orders = _timed(self._orders) if call.orders else None
        terminal, account, unread = self._owner_now()
        self.calls.note_change("terminal_info", None, terminal)
        self.calls.note_change("account_info", None, account)
        self.market.learn_terminal(terminal)
        return Looked(
            terminal=model_of(TerminalInfo, terminal),
            account=model_of(AccountInfo, account),
            tick=self.market.newest_tick(call.symbols),
            selected=tuple(self.market.selected),
            unread=unread,
            deals=deals,
            ends=ends,
            positions=positions,
            orders=orders,
        )

    def _owner_now(self) -> tuple[Any, Any, str]:
        """Return permissions, account, and which of them could not be read though the terminal is connected."""
        calls = self.calls
        terminal = calls.call("terminal_info")
        unread = calls.failed("terminal_info") if terminal is None else ""
        account = calls.call("account_info")
        if account is None and terminal is not None and terminal["connected"]:
            unread = calls.failed("account_info")
        return terminal, account, unread

    def _positions(self) -> Page[TradePosition]:
        rows = self.calls.call("positions_get")
        self.calls.note_rows("positions_get", rows)
        return Page(None if rows is None else models_of(TradePosition, rows))

    def _orders(self) -> Page[TradeOrder]:
        rows = self.calls.call("orders_get")
        self.calls.note_rows("orders_get", rows)
        return Page(None if rows is None else models_of(TradeOrder, rows))

    def check(self, call: OrderCheck) -> Checked:
        """Ask the terminal program whether it would take a request; nothing is sent."""
        answer = self.calls.call("order_check", call.request, request=call.request, log=True)
        return Checked(None if answer is None else answer["retcode"])

    def send(self, call: Send) -> SendResult:
        """Make the one ``order_send`` of an order, unless its time is over.

        Nothing that goes wrong with its deals, which are read after it, changes anything in the answer beside.
        """
        if time.time() >= call.not_after:
            return SendResult(sent=False)
        raw = self.calls.call("order_send", call.request, request=call.request, log=True) or {}
        crashpoints.reach("terminal.in_order_send")
        at, error = time.time(), self.calls.error
        result = SendResult(
            sent=True,
            **{name: raw[name] for name in ("retcode", "order", "request_id", "comment") if name in raw},
            raw=raw,
            at=at,
        )
        deals = None if call.deals is None else self._deals_of(result, error, call.deals)
        # After both: a person may switch the account between check and call.
        account = None if self.calls.broken else self.calls.call("account_info")
        if account is not None and (other := self._other_than_ours(account)):
            result = replace(result, logged_in_as=other)
        elif account is not None and deals is not None:
            result = replace(result, deals=self.history.told(deals))
        self.calls.error = error  # order_send's own is what the answer is judged by
        return result

    def _deals_of(self, result: SendResult, error: tuple[int, str], where: DealWindow) -> list[Any] | None:
        """Return an order's deals as far as they show; those of a terminal without a connection are no less its own."""
        verdict = classify_opening(result.retcode, result.order, result.comment, error)
        if verdict.outcome != "accepted":
            return None
        try:
            return self.history.of_order(result.order, where)
        except NotConnectedError:
            return None

    def _other_than_ours(self, account: Mapping[str, Any]) -> str | None:
        """Return who is logged in if it is another account than ours."""
        if (account["login"], account["server"]) == self._owner:
            return None
        return f"{account['login']} on {account['server']}"

    def order(self, call: ReadOrder) -> OrderSeen:
        """Read what an operation on an order is judged by."""
        seen = lookups.order(self.calls, call.ticket)
        return replace(seen, prepared=self._market_of(seen.live))

    def position(self, call: ReadPosition) -> PositionSeen:
        """Read what an operation on a position is judged by."""
        seen = lookups.position(self.calls, call.position_id)
        return replace(seen, prepared=self._market_of(seen.live)) if call.with_market else seen

    def _market_of(self, live: TradeOrder | TradePosition | None) -> Prepared | None:
        return None if live is None else self.market.prepare(Prepare(live.symbol))

    def account(self, _: ReadAccount) -> AccountSeen:
        """Read account and permissions."""
        terminal, account = self.calls.call("terminal_info"), self.calls.call("account_info")
        return AccountSeen(model_of(TerminalInfo, terminal), model_of(AccountInfo, account))

    def stop(self) -> None:
        """Give the connection back."""
        self.calls.call("shutdown")


def _timed(read: Callable[..., A], *asked: Any) -> Timed[A]:
    began = time.perf_counter()
    return Timed(read(*asked), time.perf_counter() - began)


def main() -> None:
    """Serve the parent until it closes our standard input or ends."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when we stop
    requests, answers = private_pipes()
    setup = frames.decode_call(frames.read(requests) or b"")
    assert isinstance(setup, Setup)
    lock = FileLock(Path(setup.lock))
    crashpoints.arm(setup.crash_at)
    worker = Worker(importlib.import_module(MODULES[setup.module]))
    while (body := frames.read(requests)) is not None:
        answers.write(worker.exchange(body))
        answers.flush()
    worker.stop()
    lock.release()
