"""What may be opened at an account: the file's limits, what persons have set in their place, and today's use."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from streamapp.domain.day import uses
from streamapp.domain.limits import NO_SYMBOL_LIMITS, AccountLimits, Limits, SymbolLimits
from streamapp.domain.parameters import plain
from streamapp.domain.vocabulary import time_text
from streamapp.messages.account import AccountMessage
from tables.accounts import AccountRow


def limits_answer(
    file: AccountLimits, row: AccountRow, state: AccountMessage | None, skew: timedelta | None
) -> dict[str, Any]:
    """Return an account's limits: ``file``, ``override`` and ``effective``, for it and by symbol; and ``today``.

    ``clock_skew_s``: how far the clock of its terminal is ahead of ours, null until it has answered.
    """
    overrides, holds = row.limits, file.replaced(row.limits)
    symbols = sorted({*file.by_symbol, *overrides.by_symbol})
    own = {name: overrides.by_symbol.get(name, NO_SYMBOL_LIMITS) for name in symbols}
    return {
        "account": row.account,
        **_three(file.account, overrides.account, holds.account),
        "by_symbol": {name: _three(file.of_symbol(name), own[name], holds.of_symbol(name)) for name in symbols},
        "set_by": overrides.by or None,
        "set_at": None if overrides.at is None else time_text(overrides.at),
        "trading": row.trading.model_dump(mode="json"),
        "clock_skew_s": None if skew is None else skew.total_seconds(),
        "today": _today(row, holds.account, state),
    }


def _three(file: SymbolLimits, override: SymbolLimits, effective: SymbolLimits) -> dict[str, Any]:
    several = {"file": file, "override": override, "effective": effective}
    return {name: each.model_dump(mode="json", exclude_defaults=True) for name, each in several.items()}


def _today(row: AccountRow, limits: Limits, state: AccountMessage | None) -> dict[str, Any] | None:
    """Return the day as it is known, None before its first order or snapshot.

    ``loss`` since it began, ``drawdown`` from its highest equity and ``used`` are by the last snapshot.
    """
    day = row.day
    if day is None:
        return None
    net = None if state is None or state.equity is None else state.equity - day.paid
    used = () if net is None else uses(day, net, limits)
    shown = {"on", "ends_at", "offset_s", "orders", "begun_at", "balance", "equity", "highest", "reached", "cause"}
    return {
        **day.model_dump(mode="json", include=shown),
        "paid": plain(day.paid),
        "loss": None if net is None or day.equity is None else plain(max(day.equity - net, Decimal(0))),
        "drawdown": None if net is None or day.highest is None else plain(max(day.highest - net, Decimal(0))),
        "used": [
            {"guard": each.guard, "limit": plain(each.limit), "value": plain(each.value), "share": f"{each.share:.4f}"}
            for each in used
        ],
    }
