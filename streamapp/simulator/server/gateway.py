"""The road of one order_send through terminal, network and server, with everything that can go wrong on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.tables import ZERO
from streamapp.simulator.server.executor import NORMAL, ExecutionBehaviour, RequestExecutor
from streamapp.simulator.server.faults import REFUSALS, THIRD_PARTY, Faults, TriggeredFaults
from streamapp.simulator.server.requests import OrderRequest, OrderResult, context_of, load_request
from streamapp.simulator.server.schedule import ScheduledEvents, Timeline
from streamapp.simulator.server.third_party import ThirdParty
from streamapp.simulator.server.validation import refusal

Answer = Callable[[OrderResult], None]
FaultEffects = dict[str, dict[str, Any]]
"""What struck a call: kinds of faults with their params."""

# Executed or not, and answered with a code that does not say which.
_LOST = {"timeout_lost": mt5.TRADE_RETCODE_TIMEOUT, "conn_lost": mt5.TRADE_RETCODE_CONNECTION}
_UNTOLD = {"timeout_executed": mt5.TRADE_RETCODE_TIMEOUT, "conn_executed": mt5.TRADE_RETCODE_CONNECTION}

# A late execution that nobody gave a time for: later than an impatient caller waits, sooner than a test's end.
LATE_MS = 1500


class OrderGateway:
    """Takes requests of terminals to the server's executor and brings the answer.

    ``latency_ms`` draws how long an order takes to the dealing desk.
    """

    def __init__(
        self, books: Books, timeline: Timeline, faults: Faults, schedule: ScheduledEvents,
        *, executor: RequestExecutor, third_party: ThirdParty, latency_ms: Callable[[], float],
    ) -> None:  # fmt: skip
        self._books = books
        self._timeline = timeline
        self._faults = faults
        self._executor = executor
        self._third_party = third_party
        self._schedule = schedule
        self._latency_ms = latency_ms
        schedule.handlers["late"] = self._execute_late

    def send(
        self, account: SimulatedAccount, request: OrderRequest, triggered: TriggeredFaults, answer: Answer
    ) -> None:
        """Answer with the result, at once or after the latency. A refusal of the terminal is bare of numbers."""
        code = self._faults.refusal(account)
        code = code or refusal(context_of(self._books, account, request), account.profile.terminal_checks)
        if code:
            answer(OrderResult(code))
            return
        effects = {kind: fault.params for kind, fault in triggered.items()}
        self._timeline.wait(self._latency_ms(), lambda: answer(self._deal(account, request, effects)))

    def _deal(self, account: SimulatedAccount, request: OrderRequest, effects: FaultEffects) -> OrderResult:
        """The server's part: it executes, or refuses, loses, delays or twists."""
        if not effects:
            return self._executor.execute(account, request)
        for kind, code in REFUSALS.items():
            if kind in effects:
                return self._bare(account, request, int(effects[kind].get("retcode", code)))
        for kind, code in _LOST.items():
            if kind in effects:
                return self._bare(account, request, code)
        if "timeout_late" in effects:
            delay = effects["timeout_late"].get("ms", LATE_MS)
            self._schedule.after(delay, "late", account.name, request.dump(), effects)
            return self._bare(account, request, mt5.TRADE_RETCODE_TIMEOUT)
        return self._told(account, request, effects, self._execute(account, request, effects))

    def _told(
        self, account: SimulatedAccount, request: OrderRequest, effects: FaultEffects, result: OrderResult
    ) -> OrderResult:
        """What the client is told of an execution."""
        for kind, code in _UNTOLD.items():
            if kind in effects:
                return self._bare(account, request, code)
        if "false_answer" in effects:
            code = int(effects["false_answer"].get("retcode", 0))
            return OrderResult(code, request_id=result.request_id)
        if "done_without_deal" in effects and result.retcode == mt5.TRADE_RETCODE_DONE:
            return replace(result, deal=0, order=0, price=ZERO)
        return result

    def _execute(self, account: SimulatedAccount, request: OrderRequest, effects: FaultEffects) -> OrderResult:
        behaviour = behaviour_of(effects)
        result = self._executor.execute(account, request, behaviour)
        for _ in range(int(effects["duplicate_fill"].get("extra", 1)) if "duplicate_fill" in effects else 0):
            self._executor.execute(account, request, behaviour)
        for kind in THIRD_PARTY:
            if kind in effects:
                # A deal that can't be taken back (it turned a position round) stays; the order is answered anyway.
                with suppress(ValueError):
                    self._third_party.act(kind, effects[kind], [account], request)
        return result

    def _execute_late(self, name: str, values: list[Any], effects: FaultEffects) -> None:
        """Nobody is told the result."""
        account = self._books.accounts.get(name)
        if account is not None:
            self._execute(account, load_request(values), effects)

    def _bare(self, account: SimulatedAccount, request: OrderRequest, code: int) -> OrderResult:
        return self._executor.answer(context_of(self._books, account, request), code)


def behaviour_of(effects: FaultEffects) -> ExecutionBehaviour:
    """Return how the faults that struck have the broker treat an order."""
    behaviour = NORMAL
    for kind, params in effects.items():
        ms = int(params.get("ms") or LATE_MS)
        share = Decimal(str(params.get("share", "0.5")))
        changes: dict[str, dict[str, object]] = {
            "placed_then_fill": {"placed_ms": ms},
            "placed_then_reject": {"placed_ms": ms, "placed_is_rejected": True},
            "partial": {"share": share},
            "partial_then_rest": {"share": share, "rest_after_ms": ms},
            "magic_zeroed": {"magic_zeroed": True},
            "sl_tp_ignored_on_open": {"without_stops": True},
            "volume_adjusted": {"added_steps": int(params.get("steps", 1))},
            "comment_rewrite": {"comment": _rewriting(params)},
        }
        behaviour = replace(behaviour, **changes.get(kind, {}))  # type: ignore[arg-type]  # names are ExecutionBehaviour's own
    return behaviour


def _rewriting(params: dict[str, Any]) -> tuple[str, str | int]:
    how = params.get("how", "empty")
    return (how, int(params.get("length", 10))) if how == "truncate" else (how, str(params.get("text", "")))
