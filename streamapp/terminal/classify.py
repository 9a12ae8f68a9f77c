"""What an answer of ``order_send`` means for an order that opens: the tables of retcodes and of last_error, as data.

Source: reference mt5 §1.2 (last_error) and §2.4 (retcodes). Whatever is not in a table is a doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["accepted", "rejected", "not_sent", "doubt"]

RETCODES: dict[int, tuple[str, Outcome]] = {
    0: ("none", "doubt"),  # seen with positions opened all the same
    10004: ("requote", "rejected"),
    10006: ("reject", "rejected"),
    10007: ("cancel", "rejected"),
    10008: ("placed", "accepted"),
    10009: ("done", "accepted"),
    10010: ("done_partial", "accepted"),
    10011: ("error", "doubt"),
    10012: ("timeout", "doubt"),
    10013: ("invalid", "rejected"),
    10014: ("invalid_volume", "rejected"),
    10015: ("invalid_price", "rejected"),
    10016: ("invalid_stops", "rejected"),
    10017: ("trade_disabled", "rejected"),
    10018: ("market_closed", "rejected"),
    10019: ("no_money", "rejected"),
    10020: ("price_changed", "rejected"),
    10021: ("price_off", "rejected"),
    10022: ("invalid_expiration", "rejected"),
    10023: ("order_changed", "doubt"),  # another request is in progress: state unknown
    10024: ("too_many_requests", "rejected"),
    10025: ("no_changes", "doubt"),  # the answer to a modification: it can't be one to what we sent
    10026: ("server_disables_at", "rejected"),
    10027: ("client_disables_at", "rejected"),
    10028: ("locked", "doubt"),  # as 10023
    10029: ("frozen", "rejected"),
    10030: ("invalid_fill", "rejected"),
    10031: ("connection", "doubt"),
    10032: ("only_real", "rejected"),
    10033: ("limit_orders", "rejected"),
    10034: ("limit_volume", "rejected"),
    10035: ("invalid_order", "rejected"),
    10036: ("position_closed", "doubt"),  # the answer to a close, as 10025
    10038: ("invalid_close_volume", "rejected"),
    10039: ("close_order_exist", "doubt"),  # as 10023
    10040: ("limit_positions", "rejected"),
    10041: ("reject_cancel", "rejected"),
    10042: ("long_only", "rejected"),
    10043: ("short_only", "rejected"),
    10044: ("close_only", "rejected"),
    10045: ("fifo_close", "rejected"),
    10046: ("hedge_prohibited", "rejected"),
}

LAST_ERRORS: dict[int, tuple[str, Outcome]] = {
    1: ("success", "doubt"),  # None without an error
    -1: ("fail", "doubt"),
    -2: ("invalid_params", "not_sent"),
    -3: ("no_memory", "doubt"),
    -4: ("not_found", "doubt"),
    -5: ("invalid_version", "not_sent"),
    -6: ("auth_failed", "not_sent"),
    -7: ("unsupported", "not_sent"),
    -8: ("auto_trading_disabled", "not_sent"),
    -10000: ("internal_fail", "doubt"),
    -10001: ("internal_fail_send", "doubt"),
    -10002: ("internal_fail_receive", "doubt"),
    -10003: ("internal_fail_init", "doubt"),  # of initialize only: as an answer to order_send it proves nothing
    -10004: ("internal_fail_connect", "not_sent"),
    -10005: ("internal_fail_timeout", "doubt"),
}

IPC_ERRORS = frozenset(range(-10005, -9999))
"""After any of them the replies may be one out of phase: nothing is asked before the next ``initialize``."""


@dataclass(frozen=True)
class Verdict:
    """What we know after ``order_send``. ``ticket`` is the answer's; it is > 0 when the outcome is accepted."""

    outcome: Outcome
    name: str
    message: str = ""
    ticket: int = 0


def classify(retcode: int | None, ticket: int, comment: str, last_error: tuple[int, str]) -> Verdict:
    """Return what an answer means.

    Args:
        retcode: The result's retcode, or None where ``order_send`` returned None.
        ticket: The result's ``order``.
        comment: The result's comment.
        last_error: Read immediately after the call.
    """
    if retcode is None:
        code, text = last_error
        name, outcome = LAST_ERRORS.get(code, (f"last_error_{code}", "doubt"))
        return Verdict(outcome, name, f"{text} ({code})")
    name, outcome = RETCODES.get(retcode, (f"retcode_{retcode}", "doubt"))
    if outcome != "accepted":
        return Verdict(outcome, name, comment, ticket)
    if ticket <= 0:
        return Verdict("doubt", name, "expected an order ticket with a retcode of success, got 0")
    return Verdict("accepted", name, comment, ticket)
