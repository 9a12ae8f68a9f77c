"""Order execution between a risk engine and a MetaTrader 5 broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from streamapp.clients import Client, SyncClient

__version__ = "0.1.0"


def client(url: str | None = None, **options: Any) -> AbstractAsyncContextManager[Client]:
    """Connect a program of yours: ``async with streamapp.client(url) as client`` (:func:`streamapp.clients.client`)."""
    from streamapp.clients import client

    return client(url, **options)


def sync_client(url: str | None = None, **options: Any) -> SyncClient:
    """The same without an event loop: ``with streamapp.sync_client(url) as client``."""
    from streamapp.clients import sync_client

    return sync_client(url, **options)
