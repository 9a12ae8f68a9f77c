"""The road of one order_send through terminal, network and server, with everything that can go wrong on it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.faults import REFUSALS, Fault
from streamapp.simulator.intake import intake
from streamapp.simulator.matching import AS_IT_SHOULD, Handling
from streamapp.simulator.money import ZERO
from streamapp.simulator.requests import Request, Result, load_request
from streamapp.simulator.validation import refusal

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

Answer = Callable[[Result], None]
Struck = dict[str, Fault]
Twists = dict[str, dict[str, Any]]
"""What struck a call: kinds of faults with their params."""

# Executed or not, and answered with a code that does not say which.
_LOST = {"timeout_lost": mt5.TRADE_RETCODE_TIMEOUT, "conn_lost": mt5.TRADE_RETCODE_CONNECTION}
_UNTOLD = {"timeout_executed": mt5.TRADE_RETCODE_TIMEOUT, "conn_executed": mt5.TRADE_RETCODE_CONNECTION}

# A late execution that nobody gave a time for: later than an impatient caller waits, sooner than a test's end.
LATE_MS = 1500


class Dealing:
    """Takes requests of terminals to the market's matching and brings the answer."""

    def __init__(self, market: "Market") -> None:
        """Deals with `market`."""
        self._market = market
        market.effects.handlers["late"] = self._execute_late

    def send(self, account: Account, request: Request, struck: Struck, answer: Answer) -> None:
        """Answers with the result, at once or after the latency. A refusal of the terminal is bare of numbers."""
        market = self._market
        code = market.faults.refusal(account)
        code = code or refusal(intake(market, account, request), account.profile.terminal_checks)
        if code:
            answer(Result(code))
            return
        if not struck:
            market.wait(market.draw_latency_ms(), lambda: answer(market.matching.handle(account, request)))
            return
        twists = {kind: fault.params for kind, fault in struck.items()}
        market.wait(market.draw_latency_ms(), lambda: answer(self._deal(account, request, twists)))

    def _deal(self, account: Account, request: Request, twists: Twists) -> Result:
        """The server's part: refuses, loses, delays, twists or executes."""
        for kind, code in REFUSALS.items():
            if kind in twists:
                return self._bare(account, request, int(twists[kind].get("retcode", code)))
        for kind, code in _LOST.items():
            if kind in twists:
                return self._bare(account, request, code)
        return self._dealt(account, request, twists)

    def _dealt(self, account: Account, request: Request, twists: Twists) -> Result:
        """Executes, now or late, and says so, or not."""
        if "timeout_late" in twists:
            delay = twists["timeout_late"].get("ms", LATE_MS)
            self._market.effects.after(delay, "late", account.name, request.dump(), twists)
            return self._bare(account, request, mt5.TRADE_RETCODE_TIMEOUT)
        result = self._execute(account, request, twists)
        for kind, code in _UNTOLD.items():
            if kind in twists:
                return self._bare(account, request, code)
        if "false_answer" in twists:
            return replace(Result(int(twists["false_answer"].get("retcode", 0))), request_id=result.request_id)
        if "done_without_deal" in twists and result.retcode == mt5.TRADE_RETCODE_DONE:
            return replace(result, deal=0, order=0, price=ZERO)
        return result

    def _execute(self, account: Account, request: Request, twists: Twists) -> Result:
        matching, handling = self._market.matching, handling_of(twists)
        result = matching.handle(account, request, handling)
        for _ in range(int(twists["duplicate_fill"].get("extra", 1)) if "duplicate_fill" in twists else 0):
            matching.handle(account, request, handling)
        for kind in ("foreign_activity", "ticket_reopen"):
            if kind in twists:
                # A deal that can't be taken back (it turned a position round) stays; the order is answered anyway.
                with suppress(ValueError):
                    self._market.deeds.do(kind, twists[kind], [account], request)
        return result

    def _execute_late(self, name: str, values: list[Any], twists: Twists) -> None:
        """Nobody is told the result."""
        account = self._market.accounts.get(name)
        if account is not None:
            self._execute(account, load_request(values), twists)

    def _bare(self, account: Account, request: Request, code: int) -> Result:
        return self._market.matching.answer(intake(self._market, account, request), code)


def handling_of(twists: Twists) -> Handling:
    """How the faults that struck have the broker treat an order."""
    handling = AS_IT_SHOULD
    for kind, params in twists.items():
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
        handling = replace(handling, **changes.get(kind, {}))  # type: ignore[arg-type]  # names are Handling's own
    return handling


def _rewriting(params: dict[str, Any]) -> tuple[str, str | int]:
    how = params.get("how", "empty")
    return (how, int(params.get("length", 10))) if how == "truncate" else (how, str(params.get("text", "")))
