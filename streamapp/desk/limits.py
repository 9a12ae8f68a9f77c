"""Limits that persons change while it runs: kept in the account's row, in place of the file's, and shown beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from streamapp.desk.guards import file_limits_of
from streamapp.desk.state import Draft
from streamapp.domain.day import REDUCE_AT, WARN_AT
from streamapp.domain.limits import DAY_LIMITS, LimitOverrides, Limits, SymbolLimits, needs_terminal
from streamapp.errors import Unusable
from streamapp.messages.envelope import reason_and_detail

KindT = TypeVar("KindT", bound=SymbolLimits)
MOST_SYMBOLS = 200
"""Symbols with limits of their own, at most: they stand in every write of the account's row."""


def set_limits(draft: Draft, changes: Mapping[str, Any], *, by: str, symbol: str | None = None) -> LimitOverrides:
    """Set limits of the account, or of one symbol at it, in place of the file's; return all that is set by now.

    They hold from the account's next input on, and until they are set anew: a new day does not end them. A change of a
    day's loss or drawdown limit lets the day's steps be judged anew, and lifts no trading state.

    Args:
        draft: The commit.
        changes: New values by the names of the settings; None takes a limit that was set back to the file's.
        by: Who.
        symbol: Our name of the symbol that they are for alone; None: for the account.

    Raises:
        Unusable: as :func:`changed_limits`; nothing is changed.
    """
    after = changed_limits(draft, changes, symbol=symbol).model_copy(update={"by": by[:128], "at": draft.now})
    row = draft.account_row()
    day = row.day
    if day is not None and DAY_LIMITS & changes.keys():
        day = day.model_copy(update={"reached": None, "cause": ""})
    draft.put_account(row.model_copy(update={"limits": after, "day": day}))
    return after


def changed_limits(draft: Draft, changes: Mapping[str, Any], *, symbol: str | None = None) -> LimitOverrides:
    """Return what would be set, and change nothing.

    Raises:
        Unusable: ``invalid``, naming the field and what was expected.
    """
    known = draft.account_row().limits
    if not changes:
        raise Unusable("invalid", f"limits: expected one of {', '.join(sorted(Limits.model_fields))}, got none")
    if symbol is None:
        after = known.model_copy(update={"account": _changed(known.account, changes)})
    else:
        own = _changed(known.by_symbol.get(symbol, SymbolLimits()), changes)
        after = known.model_copy(update={"by_symbol": _with(known.by_symbol, symbol, own)})
    _check(draft, after.model_copy(update={"at": draft.now}))
    return after


def _changed(known: KindT, changes: Mapping[str, Any]) -> KindT:
    kind = type(known)
    if unknown := sorted(changes.keys() - kind.model_fields.keys()):
        names = ", ".join(sorted(kind.model_fields))
        raise Unusable("invalid", f"{unknown[0]:.40}: expected one of {names}")
    kept = {name: value for name, value in known.model_dump(exclude_defaults=True).items() if name not in changes}
    try:
        return kind.model_validate(kept | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        raise Unusable(*reason_and_detail(error)) from None


def _with(known: Mapping[str, SymbolLimits], symbol: str, own: SymbolLimits) -> dict[str, SymbolLimits]:
    rest = {name: limits for name, limits in known.items() if name != symbol}
    if own == SymbolLimits():
        return rest
    if len(rest) >= MOST_SYMBOLS:
        raise Unusable("invalid", f"symbol: expected limits of {MOST_SYMBOLS} symbols at most")
    return {**rest, symbol: own}


def _check(draft: Draft, overrides: LimitOverrides) -> None:
    limits = file_limits_of(draft).replaced(overrides).account
    warn_at, reduce_at = limits.warn_at or WARN_AT, limits.reduce_at or REDUCE_AT
    if warn_at > reduce_at:
        raise Unusable("invalid", f"warn_at: expected reduce_at ({reduce_at}) at most, got {warn_at}")
    several = (overrides.account, *overrides.by_symbol.values())
    if not draft.policy.executes and (blind := sorted(set().union(*map(needs_terminal, several)))):
        raise Unusable(
            "invalid", f"{blind[0]}: expected none in role execution: no terminal of ours shows what it needs"
        )
