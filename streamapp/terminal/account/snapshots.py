"""Positions and account as they are now, on ``mt5.snapshot.{account}``; only the latest counts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client

from streamapp import subjects
from streamapp.clock import Clock
from streamapp.messages.account import AccountMessage, SnapshotMessage, SnapshotOrder, SnapshotPosition
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ORDER_TYPES, SIDES
from streamapp.settings import TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View
from streamapp.terminal.pipe.answers import Looked
from streamapp.terminal.pipe.calls import Look
from streamapp.terminal.pipe.structs import AccountInfo, TradeOrder, TradePosition, number

logger = logging.getLogger(__name__)

HEADERS_B = 200
"""More than the headers of a snapshot take; they count for NATS."""
REST_SHARE = 20
"""Between two snapshots at least so many times the duration of one: thousands of positions cost the worker 5 % of its
time at most."""


class Snapshots:
    """Says every ``snapshot_interval_s`` what the terminal sees; while it sees nothing, how the connection is.

    What changed is said a second time at the next look: the desk believes a difference with its books when two show it.

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
        self._owners: dict[int, str | None] = {}
        self._owners_at = -1
        self._shown: frozenset[tuple[object, ...]] | None = None
        self._is_second = False
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
            await self._rest()

    async def _rest(self) -> None:
        """Wait until the next snapshot is due; of an account that can't be read, no longer than until it can."""
        pause_s = max(0.0 if self._is_second else self._settings.snapshot_interval_s, self._took_s * REST_SHARE)
        if self._connection.is_readable:
            await asyncio.sleep(pause_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._connection.readable()

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
        account = self._journal.book.account
        if self._connection.health.connection not in {"ready", "no_algo_trading"}:
            at = self._clock()
            deals = await self._deals_seen.get()
            return SnapshotMessage(account=account, state=self._state(account, None, at), deals_seen=deals, at=at)
        before = self._journal.last_seq
        try:
            seen = await self._connection.ride(Look(positions=True, orders=True))
        except (NotHandedOverError, WorkerLostError) as error:
            logger.debug("no positions this time: %s", error)
            return None
        return await self._told(account, seen, before)

    async def _told(self, account: str, seen: Looked, before: int) -> SnapshotMessage | None:
        assert seen.positions is not None
        assert seen.orders is not None
        self._took_s = seen.positions.took_s + seen.orders.took_s
        rows, orders = seen.positions.value.rows, seen.orders.value.rows
        if rows is None or orders is None:
            return None
        owners = await self._owners_of([*((row.identifier, row.magic) for row in rows), *map(_named, orders)])
        deals, at = await self._deals_seen.get(), self._clock()
        # Last of all: what was reported while anything was read, or looked up, may be in the one and not in the other.
        report_seq = before if self._journal.last_seq == before else None
        snapshot = SnapshotMessage(
            account=account,
            state=self._state(account, self._connection.account_info, at),
            positions=tuple(_position(row, owners[row.identifier]) for row in rows),
            orders=tuple(_order(row, owners[row.ticket]) for row in orders),
            deals_seen=deals,
            report_seq=report_seq,
            at=at,
        )
        self._note_change(snapshot)
        return snapshot

    async def _owners_of(self, named: list[tuple[int, int]]) -> dict[int, str | None]:
        """Return whose (ticket, magic) are; an owner stays one, and who has none is asked for after a commit again."""
        is_new = self._owners_at != self._journal.revision
        known, revision = self._owners, self._journal.revision
        asked = [
            (ticket, magic) for ticket, magic in named if known.get(ticket) is None and (is_new or ticket not in known)
        ]
        found = await self._journal.write(partial(_names, rows=asked)) if asked else {}
        self._owners = {ticket: found.get(ticket, known.get(ticket)) for ticket, _ in named}
        self._owners_at = revision
        return self._owners

    def _note_change(self, snapshot: SnapshotMessage) -> None:
        """Let a second snapshot follow at once where this one shows something else than the one before."""
        shown = frozenset(
            {(each.position_id, each.symbol, each.side, each.volume) for each in snapshot.positions}
            | {(each.ticket, each.symbol, each.volume) for each in snapshot.orders}
        )
        self._is_second = shown != self._shown and not self._is_second
        self._shown = shown

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


def _names(book: Book, rows: list[tuple[int, int]]) -> dict[int, str]:
    return operation_rows.names(book, rows)


def _named(row: TradeOrder) -> tuple[int, int]:
    return row.ticket, row.magic


def _order(row: TradeOrder, order_id: str | None) -> SnapshotOrder:
    kind, side = ("close_by", None) if row.type == mt5.ORDER_TYPE_CLOSE_BY else ORDER_TYPES[row.type]
    return SnapshotOrder(
        ticket=row.ticket,
        symbol=row.symbol,
        side=side,
        order_type=kind,
        volume=number(row.volume_current),
        price=number(row.price_open),
        magic=row.magic,
        order_id=order_id,
    )


def _position(row: TradePosition, order_id: str | None) -> SnapshotPosition:
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
        order_id=order_id,
    )
