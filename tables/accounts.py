"""Table ``accounts``: two kinds of rows, each with one writer.

``account:{name}`` is the account as its terminal saw it last, written by the snapshots agent; ``watermark:{name}`` is
how far the reports of its terminal are durable with us, written by the reports agent.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, RootModel

from streamapp.domain.vocabulary import UtcTime
from streamapp.messages.account import AccountMessage
from tables.row import Row

NAME = "accounts"


class WatermarkRow(Row):
    """Every report of ``epoch`` up to ``watermark`` is a fact in the archive; ``earlier`` epochs are over."""

    kind: Literal["watermark"] = "watermark"
    account: str
    epoch: str
    watermark: int = Field(ge=0)
    earlier: tuple[str, ...] = ()


class AccountStateRow(Row):
    """The account as its terminal saw it last, at ``at``; ``state.at`` is when it last changed."""

    kind: Literal["account"] = "account"
    account: str
    state: AccountMessage
    at: UtcTime


class AccountRow(RootModel[WatermarkRow | AccountStateRow]):
    """A row of the table: ``root`` is one of the two."""

    root: WatermarkRow | AccountStateRow = Field(discriminator="kind")


def watermark_key(account: str) -> bytes:
    """Return the key of the account's watermark."""
    return f"watermark:{account}".encode()


def account_key(account: str) -> bytes:
    """Return the key of the account's state."""
    return f"account:{account}".encode()
