"""What agents need of ClickHouse. Each port has one contract suite below tests/."""

from __future__ import annotations

from typing import Any, Protocol


class SignalRows(Protocol):
    """The risk engine's table ``trading_signals``."""

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        """Return the newest row of a signal in our names and words, None if there is none.

        Args:
            signal_id: The id.
            account: Only a row of this account, or of none; None: any.

        Raises:
            Transient: ClickHouse did not answer in time.
        """
        ...


class OrderLookup(Protocol):
    """Table ``orders``, as somebody else's execution service keeps it."""

    async def order(self, order_id: str) -> dict[str, Any] | None:
        """Return the newest revision of an order in our names, None if there is none.

        Raises:
            Transient: ClickHouse did not answer in time.
        """
        ...
