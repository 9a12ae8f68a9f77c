"""What agents need of the world beside Kafka. Each port has one contract suite below tests/."""

from __future__ import annotations

from typing import Any, Protocol

from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)


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


class OrderRows(Protocol):
    """Table ``orders``, as somebody else's execution service keeps it."""

    async def order(self, order_id: str) -> dict[str, Any] | None:
        """Return the newest revision of an order in our names, None if there is none.

        Raises:
            Transient: ClickHouse did not answer in time.
        """
        ...


class Terminals(Protocol):
    """The terminals, one for each account. None is silence: nobody knows whether the request arrived.

    Silence includes an answer that can't be read and a terminal that says ``error``.
    """

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        """Ask who the account's terminal is now."""
        ...

    async def submit(self, request: SubmitRequest, *, timeout_s: float) -> SubmitReply | None:
        """Hand an order over. Requests of one account arrive in the order in which the calls were made."""
        ...

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        """Say which reports are durable with us."""
        ...

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        """Ask for reports again."""
        ...
