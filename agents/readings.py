"""A record of ``signals_approved``, read: a signal, or why it is none, and what is known of it in either case."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from agents.incoming import ACCOUNT, COMPLETED, Incoming
from streamapp.domain.identifiers import partition_of
from streamapp.domain.signals import fingerprint_of
from streamapp.errors import Unusable
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import Signal, account_of, read_signal, renamed, signal_id_of
from streamapp.settings import Settings
from tables.signals import signal_key

SHOWN_SYMBOL = 64
"""Characters of an unreadable symbol that are kept: it becomes part of a subject, and no real one is longer."""
SHOWN_STRATEGY = 128


@dataclass(frozen=True, slots=True)
class Reading:
    """One message of a signal. ``signal`` is None where a field is bad; ``fault`` says which then."""

    incoming: Incoming
    account: str
    signal_id: str
    symbol: str
    strategy: str | None
    signal: Signal | None
    fault: str | None
    fingerprint: str

    @property
    def key(self) -> bytes:
        """The key of the signal's row."""
        return signal_key(self.account, self.signal_id)


def read(incoming: Incoming, settings: Settings) -> Reading:
    """Return what a record says.

    Raises:
        Unusable: it names no signal or no account, or stands in a partition that is not its account's: a dead letter.
            Mirror lets none of these pass, so somebody produced it by hand.
    """
    named = _completed(renamed(json_object(incoming.payload), settings.execution), incoming)
    signal_id = signal_id_of(named)
    if signal_id is None:
        raise Unusable("no_signal_id", "signal_id: expected 1 to 128 visible ASCII characters")
    account = account_of(named) if named.get("account") is not None else incoming.text(ACCOUNT)
    if account is None:
        raise Unusable("no_account", "account: expected a name; send signals without one to topic incomplete")
    require_place(incoming, account, settings.kafka.partitions)
    signal, fault = _signal(named | {"account": named.get("account", account)})
    digest = hashlib.sha256(incoming.payload).hexdigest()
    symbol, strategy = named.get("symbol"), named.get("strategy")
    return Reading(
        incoming,
        account,
        signal_id,
        symbol[:SHOWN_SYMBOL] if isinstance(symbol, str) else "",
        strategy[:SHOWN_STRATEGY] if isinstance(strategy, str) else None,
        signal,
        fault,
        fingerprint_of(signal, digest),
    )


def require_place(incoming: Incoming, account: str, partitions: int) -> None:
    """Return if a record stands where its account's records stand: only there one after another is handled.

    Raises:
        Unusable: ``wrong_key`` or ``wrong_partition``.
    """
    if incoming.key != account.encode():
        raise Unusable(
            "wrong_key", f"expected the account {account!r:.80} as the record's key, got {incoming.key!r:.80}"
        )
    if partition_of(account, partitions) != incoming.partition:
        raise Unusable(
            "wrong_partition", f"expected the partition of account {account!r:.80}, got {incoming.partition}"
        )


def _completed(named: dict[str, Any], incoming: Incoming) -> dict[str, Any]:
    if COMPLETED not in incoming.headers:
        return named
    found = json_object(incoming.headers[COMPLETED])
    return found | {name: value for name, value in named.items() if value is not None}


def _signal(named: dict[str, Any]) -> tuple[Signal | None, str | None]:
    if named["account"] is None:
        named = named | {"account": ""}
    try:
        return read_signal(named), None
    except Unusable as error:
        return None, error.detail
