"""What an answer of ``order_send`` means for an operation: the same code is a failure to one and a success to another.

Source: reference mt5 §2.4 (retcodes) and §1.2 (last_error), as data. Whatever is not in a table is a doubt. The answers
to orders that open are in classify.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamapp.terminal import classify

Kind = Literal["cancel", "modify", "protect", "close", "close_by"]
Meaning = Literal["done", "taken", "retry", "doubt", "rejected", "refused", "unsent"]
"""done: it is as wanted, by the server's own word. taken: the broker took it, and the state will show it. retry: it was
not executed, and the state must be looked at before anything else. doubt: nobody knows. rejected: not executed, and
trying again is of no use. refused: never sent, and never will be. unsent: never sent, and it may be tried again."""

KINDS: tuple[Kind, ...] = ("cancel", "modify", "protect", "close", "close_by")
_DOUBT: tuple[Meaning, ...] = ("doubt",) * 5
_TAKEN: tuple[Meaning, ...] = ("taken",) * 5
_REJECTED: tuple[Meaning, ...] = ("rejected",) * 5
_CONFLICT: tuple[Meaning, ...] = ("retry",) * 4 + ("doubt",)
"""Another request is in progress. Whoever sees to it by trying again must not be close-by, which is sent once."""

RETCODES: dict[int, tuple[Meaning, ...]] = {
    # code   cancel, modify, protect, close, close_by
    0: _DOUBT,
    10004: (
        "rejected",
        "rejected",
        "rejected",
        "retry",
        "rejected",
    ),  # requote: a close is asked again at the new price
    10006: _REJECTED,
    10007: _REJECTED,
    10008: _TAKEN,
    10009: _TAKEN,
    10010: ("doubt", "doubt", "doubt", "retry", "taken"),  # a close in part: what is left is closed next
    10011: _DOUBT,
    10012: _DOUBT,
    10013: ("retry", "retry", "retry", "rejected", "rejected"),  # to some builds: there is no such order
    10014: _REJECTED,
    10015: _REJECTED,
    10016: _REJECTED,
    10017: _REJECTED,
    10018: _REJECTED,
    10019: _REJECTED,
    10020: ("rejected", "rejected", "rejected", "retry", "rejected"),  # as 10004
    10021: ("rejected", "rejected", "rejected", "retry", "rejected"),  # as 10004
    10022: _REJECTED,
    10023: _CONFLICT,
    10024: ("retry", "retry", "retry", "retry", "rejected"),  # too many requests: later
    10025: ("doubt", "done", "done", "doubt", "doubt"),  # no changes: it is as wanted
    10026: _REJECTED,
    10027: _REJECTED,
    10028: _CONFLICT,
    10029: _REJECTED,
    10030: _REJECTED,
    10031: _DOUBT,
    10032: _REJECTED,
    10033: _REJECTED,
    10034: _REJECTED,
    10035: ("retry", "retry", "rejected", "rejected", "rejected"),  # as 10013
    10036: ("doubt", "doubt", "retry", "taken", "retry"),  # the position is closed: success for a close
    10038: ("rejected", "rejected", "rejected", "retry", "rejected"),  # less is open than it was a moment ago
    10039: _CONFLICT,
    10040: _REJECTED,
    10041: _REJECTED,
    10042: _REJECTED,
    10043: _REJECTED,
    10044: _REJECTED,
    10045: _REJECTED,
    10046: _REJECTED,
}

LAST_ERRORS: dict[int, Meaning] = {
    1: "doubt",  # None without an error
    -1: "doubt",
    -2: "refused",
    -3: "doubt",
    -4: "doubt",
    -5: "refused",
    -6: "refused",
    -7: "refused",
    -8: "refused",
    -10000: "doubt",
    -10001: "doubt",
    -10002: "doubt",
    -10003: "doubt",
    -10004: "unsent",
    -10005: "doubt",
}


@dataclass(frozen=True)
class Said:
    """What is known after a sending; ``text`` names the answer for a person."""

    meaning: Meaning
    text: str
    retcode: int | None = None


def said(kind: Kind, retcode: int | None, comment: str, last_error: tuple[int, str]) -> Said:
    """Return what an answer means.

    Args:
        kind: What was asked for.
        retcode: The result's, or None where ``order_send`` returned None.
        comment: The result's.
        last_error: Read immediately after the call.
    """
    if retcode is None:
        code, text = last_error
        name, _ = classify.LAST_ERRORS.get(code, (f"last_error_{code}", ""))
        return Said(LAST_ERRORS.get(code, "doubt"), f"{name}: {text} ({code})")
    name, _ = classify.RETCODES.get(retcode, (f"retcode_{retcode}", ""))
    meanings = RETCODES.get(retcode, _DOUBT)
    return Said(meanings[KINDS.index(kind)], f"{name}: {comment}" if comment else name, retcode)
