"""The road of one order_send through terminal, network and server, with everything that can go wrong on it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from streamapp.simulator import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.faults import REFUSALS, Fault
from streamapp.simulator.market import Market
from streamapp.simulator.matching import AS_IT_SHOULD, Handling
from streamapp.simulator.money import ZERO
from streamapp.simulator.requests import Request, Result
from streamapp.simulator.validation import TERMINAL_CHECKS, intake, refusal

Answer = Callable[[Result], None]
Struck = dict[str, Fault]

# A late execution that nobody gave a time for: later than an impatient caller waits, sooner than a test's end.
LATE_MS = 1500


class Dealing:
    """Takes requests of terminals to the market's matching and brings the answer."""

    def __init__(self, market: Market) -> None:
        """Deals with `market`."""
        self._market = market

    def send(self, account: Account, request: Request, struck: Struck, answer: Answer) -> None:
        """Answers with the result, at once or after the latency. A refusal of the terminal is bare of numbers."""
        market = self._market
        code = market.faults.refusal(account) or refusal(intake(market, account, request), TERMINAL_CHECKS)
        if code:
            answer(Result(code))
            return
        if not struck:
            market.wait(market.draw_latency_ms(), lambda: answer(market.matching.handle(account, request)))
            return
        market.wait(market.draw_latency_ms(), lambda: answer(self._deal(account, request, struck)))

    def _deal(self, account: Account, request: Request, struck: Struck) -> Result:
        """The server's part: refuses, loses, delays, twists or executes."""
        for kind, code in REFUSALS.items():
            if kind in struck:
                return self._bare(account, request, int(struck[kind].params.get("retcode", code)))
        if "timeout_lost" in struck or "conn_lost" in struck:
            return self._bare(account, request, 10012 if "timeout_lost" in struck else 10031)
        handling = handling_of(struck)
        if "timeout_late" in struck:
            delay = struck["timeout_late"].params.get("ms", LATE_MS)
            self._market.after(delay, lambda: self._execute_late(account, request, handling, struck))
            return self._bare(account, request, mt5.TRADE_RETCODE_TIMEOUT)
        result = self._execute(account, request, handling, struck)
        if "timeout_executed" in struck or "conn_executed" in struck:
            return self._bare(account, request, 10012 if "timeout_executed" in struck else 10031)
        if "done_without_deal" in struck and result.retcode == mt5.TRADE_RETCODE_DONE:
            return replace(result, deal=0, order=0, price=ZERO)
        return result

    def _execute(self, account: Account, request: Request, handling: Handling, struck: Struck) -> Result:
        matching = self._market.matching
        result = matching.handle(account, request, handling)
        for _ in range(int(struck["duplicate_fill"].params.get("extra", 1)) if "duplicate_fill" in struck else 0):
            matching.handle(account, request, handling)
        for kind in ("foreign_activity", "ticket_reopen"):
            if kind in struck:
                self._market.deeds.do(struck[kind], [account], request)
        return result

    def _execute_late(self, account: Account, request: Request, handling: Handling, struck: Struck) -> None:
        """Nobody is told the result."""
        self._execute(account, request, handling, struck)

    def _bare(self, account: Account, request: Request, code: int) -> Result:
        return self._market.matching.answer(intake(self._market, account, request), code)


def handling_of(struck: Struck) -> Handling:
    """How the struck faults have the broker treat an order."""
    handling = AS_IT_SHOULD
    for kind, fault in struck.items():
        ms = int(fault.params.get("ms", LATE_MS))
        share = Decimal(str(fault.params.get("share", "0.5")))
        changes: dict[str, dict[str, object]] = {
            "placed_then_fill": {"placed_ms": ms},
            "placed_then_reject": {"placed_ms": ms, "placed_is_rejected": True},
            "partial": {"share": share},
            "partial_then_rest": {"share": share, "rest_after_ms": ms},
            "magic_zeroed": {"magic_zeroed": True},
            "sl_tp_ignored_on_open": {"without_stops": True},
            "volume_adjusted": {"added_steps": int(fault.params.get("steps", 1))},
            "comment_rewrite": {"comment": _rewriting(fault)},
        }
        handling = replace(handling, **changes.get(kind, {}))  # type: ignore[arg-type]  # names are Handling's own
    return handling


def _rewriting(fault: Fault) -> tuple[str, str | int]:
    how = fault.params.get("how", "empty")
    return (how, int(fault.params.get("length", 10))) if how == "truncate" else (how, str(fault.params.get("text", "")))
