"""Positions and account as they are now, on ``mt5.snapshot.{account}``; only the latest counts."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import nats.errors
from nats.aio.client import Client

from streamapp import subjects
from streamapp.clock import Clock
from streamapp.messages.account import AccountMessage, SnapshotMessage, SnapshotPosition
from streamapp.mt5.enums import SIDES
from streamapp.settings import TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View
from streamapp.terminal.pipe.calls import Look
from streamapp.terminal.pipe.structs import AccountInfo, TradePosition, number

logger = logging.getLogger(__name__)

HEADERS_B = 200
"""More than the headers of a snapshot take; they count for NATS."""
REST_SHARE = 20
"""Between two snapshots at least so many times the duration of one: thousands of positions cost the worker 5 % of its
time at most."""


class Snapshots:
    """Says every ``snapshot_interval_s`` what the terminal sees; while it sees nothing, how the connection is.

    Attributes:
        problem: Why none can be said, and what to do. Half of the positions would read as if the others were closed.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        settings: TerminalSettings,
        deployment: str,
        *,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._settings = settings
        self._origin = subjects.origin(deployment, "terminal")
        self._clock = clock
        self._took_s = 0.0
        self._deals_seen = View(journal, Book.deals_seen)
        self.problem = ""

    async def run(self, client: Client) -> None:
        """Say it, for ever."""
        subject = subjects.snapshot(self._journal.book.account)
        while True:
            try:
                if (snapshot := await self._taken()) is not None:
                    payload = snapshot.encode()
                    self._judge_size(len(payload) + HEADERS_B, client.max_payload, len(snapshot.positions))
                    await client.publish(subject, payload, headers={subjects.ORIGIN_HEADER: self._origin})
            except nats.errors.MaxPayloadError:
                logger.debug("no snapshot this time: %s", self.problem)
            except (nats.errors.Error, OSError) as error:
                logger.debug("no snapshot this time: %s", type(error).__name__)
            await asyncio.sleep(max(self._settings.snapshot_interval_s, self._took_s * REST_SHARE))

    def _judge_size(self, size: int, most: int, positions: int) -> None:
        problem = ""
        if size > most:
            problem = (
                f"expected at most {most} bytes (max_payload of NATS), got {size} for {positions} positions: "
                "no positions are told until NATS takes more or there are fewer"
            )
        if problem and not self.problem:
            logger.error("%s", problem)
        self.problem = problem

    async def _taken(self) -> SnapshotMessage | None:
        """Return what is to be seen; None: it should be and was not, and none is not the same as not known."""
        rows: tuple[TradePosition, ...] | None = None
        info = None
        if self._connection.health.connection in {"ready", "no_algo_trading"}:
            try:
                seen = (await self._connection.ride(Look(positions=True))).positions
                assert seen is not None
                rows, self._took_s = seen.value.rows, seen.took_s
                info = self._connection.account_info
            except (NotHandedOverError, WorkerLostError) as error:
                logger.debug("no positions this time: %s", error)
            if rows is None:
                return None
        account = self._journal.book.account
        at = self._clock()
        return SnapshotMessage(
            account=account,
            state=self._state(account, info, at),
            positions=tuple(_position(row) for row in rows or ()),
            deals_seen=await self._deals_seen.get(),
            at=at,
        )

    def _state(self, account: str, info: AccountInfo | None, at: Any) -> AccountMessage:
        health, halted = self._connection.health, self._journal.book.halted() is not None
        money = (
            {
                name: number(getattr(info, name))
                for name in ("balance", "credit", "equity", "margin", "margin_free", "margin_level")
            }
            if info
            else {}
        )
        return AccountMessage(
            account=account,
            connection=health.connection,
            detail=health.detail,
            trading="halted" if halted else "open" if health.connection == "ready" else "not_ready",
            currency=info.currency if info else None,
            leverage=info.leverage if info else None,
            margin_mode=("hedging" if self._connection.hedging else "netting") if info else None,
            server_offset_s=self._connection.time.offset_s,
            epoch=self._journal.book.epoch,
            at=at,
            **money,
        )


def _position(row: TradePosition) -> SnapshotPosition:
    return SnapshotPosition(
        position_id=row.identifier,
        ticket=row.ticket,
        symbol=row.symbol,
        side=SIDES[row.type],
        volume=number(row.volume),
        open_price=number(row.price_open),
        stop_loss=number(row.sl) if row.sl else None,
        take_profit=number(row.tp) if row.tp else None,
        profit=number(row.profit),
        swap=number(row.swap),
        magic=row.magic,
    )
