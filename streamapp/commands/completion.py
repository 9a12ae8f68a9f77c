"""What a shell offers for a value: known at once or not at all. Where something is wrong it is silent."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

from streamapp.commands.web import get_json
from streamapp.errors import StreamappError
from streamapp.settings import Settings, load_settings

_TIMEOUT_S = 1.0


def accounts(incomplete: str) -> list[str]:
    """Return the accounts of the settings that begin so."""
    settings = _settings()
    return [] if settings is None else _begin(settings.accounts, incomplete)


def symbols(incomplete: str) -> list[str]:
    """Return the symbols that the settings name, and that begin so."""
    if (settings := _settings()) is None:
        return []
    named = {symbol for own in settings.accounts.values() for symbol in (*own.symbols, *(own.guards.symbols or ()))}
    return _begin(named | set(settings.guards.symbols or ()), incomplete)


def orders(incomplete: str) -> list[str]:
    """Return the ids of this machine's newest orders that begin so."""
    if (settings := _settings()) is None:
        return []
    with contextlib.suppress(StreamappError):
        _, answer = get_json(f"{settings.trading_url}/orders?limit=50", timeout_s=_TIMEOUT_S)
        rows = answer.get("orders", ()) if isinstance(answer, dict) else ()
        return _begin((row["order_id"] for row in rows), incomplete)
    return []


def _settings() -> Settings | None:
    # A warning would stand in the middle of the line that is being typed.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(StreamappError):
        return load_settings()
    return None


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
