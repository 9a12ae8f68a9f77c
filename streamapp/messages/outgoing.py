"""A signal as its sender puts it on NATS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from streamapp import subjects
from streamapp.domain.vocabulary import decimal_text, in_utc, time_text
from streamapp.errors import Unusable
from streamapp.messages.signal import no_signal_id, signal_id_of


@dataclass(frozen=True)
class OutgoingSignal:
    """A signal as it goes out."""

    signal_id: str
    account: str | None
    symbol: str
    payload: bytes

    @classmethod
    def of(cls, signal: Mapping[str, Any], names: Mapping[str, str] | None = None) -> OutgoingSignal:
        """Return a signal; Decimal, aware datetime and UUID values are written as text.

        Args:
            signal: Its fields, under our own names.
            names: What our fields are called on NATS, where it is something else.

        Raises:
            Unusable: It has no ``signal_id`` or no ``symbol``, or is no JSON.
        """
        try:
            fields = {(names or {}).get(name, name): value for name, value in signal.items()}
            payload = json.dumps(fields, default=_text, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise Unusable("bad_field", f"the signal is no JSON: {error}") from None
        signal_id = signal_id_of(dict(signal))
        if signal_id is None:
            raise no_signal_id(dict(signal))
        symbol, account = signal.get("symbol"), signal.get("account")
        if not isinstance(symbol, str) or not symbol.strip():
            raise Unusable("bad_field", f"symbol: expected a text, got {symbol!r:.80}")
        return cls(signal_id, None if account is None else str(account), symbol.strip(), payload)

    @property
    def message_id(self) -> str:
        """The Nats-Msg-Id that upstreams are advised to use: a bare signal id would hide a conflict from us."""
        # As in a subject: whoever names an account must not be able to end the header, and begin one of theirs.
        account = subjects.token(self.account or "")
        return f"signal:{account}:{self.signal_id}:{hashlib.sha256(self.payload).hexdigest()[:16]}"


def _text(value: object) -> str:
    match value:
        case Decimal():
            return decimal_text(value)
        case datetime():
            return time_text(in_utc(value))
        case UUID():
            return str(value)
    raise TypeError(f"expected text, numbers, times and objects of them, got a {type(value).__name__}")
