"""Answers for the whole group: asked of an owner, of everybody and of ClickHouse, and honest about who was silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol
from urllib.parse import quote

from yarl import URL

from streamapp.clickhouse.plots import Period, PlotName
from streamapp.domain.identifiers import partition_of, partition_of_order
from streamapp.domain.vocabulary import FINAL_STATUSES
from streamapp.errors import Transient
from streamapp.web.local import Answer, Filter, Local
from streamapp.web.peers import Peers, Reply
from streamapp.web.wire import CLICKHOUSE

logger = logging.getLogger(__name__)

CLICKHOUSE_DEADLINE_S = 3.0
"""A person waits for these pages; the client's own deadline is for the sink."""


class OlderRows(Protocol):
    """What the answers need of ClickHouse (:class:`streamapp.clickhouse.reader.Reader`)."""

    async def order(self, order_id: str) -> Answer | None: ...  # noqa: D102

    async def facts(self, order_id: str, *, limit: int = 1000) -> list[Answer]: ...  # noqa: D102

    async def closed_orders(  # noqa: D102
        self,
        *,
        status: str | None,
        symbol: str | None,
        account: str | None,
        strategy: str | None,
        signal_id: str | None,
        day: date | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Answer]: ...

    async def account(self, account: str) -> Answer | None: ...  # noqa: D102

    async def position(self, account: str, symbol: str, position_id: int) -> Answer | None: ...  # noqa: D102

    async def broker_log(self, order_id: str, *, limit: int = 200) -> list[Answer]: ...  # noqa: D102

    async def decisions(self, signal_id: str, account: str, *, limit: int = 20) -> list[Answer]: ...  # noqa: D102

    async def plot(self, name: PlotName, period: Period) -> Answer: ...  # noqa: D102


@dataclass(frozen=True)
class Found:
    """An answer and who gave it."""

    body: Answer
    by: str


class Unanswered(Transient):
    """Somebody who might know it did not answer: neither found nor "there is none"."""

    def __init__(self, what: str, missing: Iterable[str]) -> None:
        self.missing = sorted(missing)
        super().__init__(f"{what}: no answer from {', '.join(self.missing)}; try again")


class Answers:
    """Answers every view, whichever worker is asked.

    Raises (every method):
        Unanswered: as above; nothing is ever said not to exist while somebody who might have it is silent.
    """

    def __init__(self, local: Local, peers: Peers, rows: OlderRows, partitions: int) -> None:
        self._local = local
        self._peers = peers
        self._rows = rows
        self._partitions = partitions

    async def order(self, order_id: str, *, with_older_facts: bool = True) -> Found | None:
        """Return order/1 with its ``facts``, None if nobody knows the order.

        Without the older ones, ClickHouse is not asked for what the workers know of the order.
        """
        path = f"/orders/{quote(order_id, safe='')}"
        partition = partition_of_order(order_id, self._partitions)
        found, missing = await self._one(path, partition, lambda: self._local.order(order_id))
        if found is not None:
            return await self._with_older_facts(found) if with_older_facts else found
        try:
            kept = await self._clickhouse(self._rows.order(order_id))
            if kept is not None:
                facts = await self._clickhouse(self._rows.facts(order_id))
                # The row of a worker that kept silent may be newer.
                return Found({**kept, "facts": facts, **_gaps(missing)}, CLICKHOUSE)
        except Transient:
            missing = [*missing, CLICKHOUSE]
        if missing:
            raise Unanswered(f"order {order_id}", missing)
        return None

    async def with_evidence(self, found: Found) -> Found:
        """Return an order's answer with what ClickHouse has beside it, each null where it did not answer.

        ``signals``: what came of its signal, and what was decided (signal/1). ``log``: its exchanges with the terminal
        (log/1). ``position``: position/1 of the position that it opened or closed, null where it names none as well.
        """
        body = found.body
        account, position_id = body.get("account") or "", body.get("position_id")
        wanted = [
            _caught(self._clickhouse(self._rows.decisions(body.get("signal_id") or "", account))),
            _caught(self._clickhouse(self._rows.broker_log(body["order_id"]))),
            _caught(self._position(account, body.get("symbol") or "", position_id)),
        ]
        signals, log, position = await asyncio.gather(*wanted)
        is_silent = any(each is None for each in (signals, log, position))
        missing = {*body.get("missing", []), *([CLICKHOUSE] if is_silent else [])}
        kept = {"signals": signals, "log": log, "position": position[0] if position else None}
        return Found({**body, **kept, **_gaps(list(missing))}, found.by)

    async def _position(self, account: str, symbol: str, position_id: int | None) -> list[Answer]:
        if position_id is None:
            return []
        found = await self._clickhouse(self._rows.position(account, symbol, position_id))
        return [] if found is None else [found]

    async def plot(self, name: PlotName, period: Period) -> Found:
        """Return what a plot shows (:func:`streamapp.clickhouse.plots.plot`)."""
        try:
            return Found(await self._clickhouse(self._rows.plot(name, period)), CLICKHOUSE)
        except Transient as error:
            logger.info("plot %s: %s", name, error)
            raise Unanswered(f"plot {name}", [CLICKHOUSE]) from None

    async def account(self, account: str) -> Found | None:
        """Return account/1, None if nobody has heard of the account's terminal."""
        path = f"/accounts/{quote(account, safe='')}"
        partition = partition_of(account, self._partitions)
        found, missing = await self._one(path, partition, lambda: self._local.account(account))
        if found is not None:
            return found
        try:
            kept = await self._clickhouse(self._rows.account(account))
            if kept is not None:
                return Found({**kept, **_gaps(missing)}, CLICKHOUSE)
        except Transient:
            missing = [*missing, CLICKHOUSE]
        if missing:
            raise Unanswered(f"account {account}", missing)
        return None

    async def orders(self, wanted: Filter) -> Found:
        """Return ``{"orders": [...], "more": ..., "incomplete": ..., "missing": [...]}``, the last changed first.

        Open orders come from the workers, closed ones from ClickHouse (some tenths of a second later). ``more``: the
        limit has cut some off. Of a day there are closed ones alone, and ``next`` is the ``before`` of those that
        follow, None if none do.
        """
        if wanted.day is not None:
            return await self._day(wanted)
        lists: list[list[Answer]] = []
        missing: list[str] = []
        if wanted.status not in FINAL_STATUSES:
            lists, missing = await self._all("/orders", "orders", _named(wanted), self._local.orders(wanted))
        if wanted.status is None or wanted.status in FINAL_STATUSES:
            try:
                lists.append(await self._clickhouse(self._closed(wanted)))
            except Transient:
                missing.append(CLICKHOUSE)
        if not lists:
            raise Unanswered("orders", missing)
        orders = _newest(order for some in lists for order in some)
        orders.sort(key=lambda order: str(order.get("updated_at")), reverse=True)
        more = len(orders) > wanted.limit or any(len(some) >= wanted.limit for some in lists)
        return self._list("orders", orders[: wanted.limit], missing, more=more)

    async def _day(self, wanted: Filter) -> Found:
        try:
            orders = await self._clickhouse(self._closed(wanted))
        except Transient:
            raise Unanswered("orders", [CLICKHOUSE]) from None
        more = len(orders) >= wanted.limit
        behind = f"{orders[-1]['updated_at']},{orders[-1]['order_id']}" if more else None
        return self._list("orders", orders, [], more=more, next=behind)

    def _closed(self, wanted: Filter) -> Awaitable[list[Answer]]:
        return self._rows.closed_orders(**_named(wanted), day=wanted.day, before=wanted.before)

    async def positions(self, wanted: Filter) -> Found:
        """Return ``{"positions": [...], "incomplete": ..., "missing": [...]}``: the open ones."""
        query = {"symbol": wanted.symbol, "account": wanted.account}
        lists, missing = await self._all("/positions", "positions", query, _now(lambda: self._local.positions(wanted)))
        if not lists:
            raise Unanswered("positions", missing)
        positions = sorted((row for some in lists for row in some), key=lambda row: (row["account"], row["symbol"]))
        return self._list("positions", positions, missing)

    async def accounts(self) -> Found:
        """Return ``{"accounts": [...], "incomplete": ..., "missing": [...]}``."""
        lists, missing = await self._all("/accounts", "accounts", {}, _now(self._local.accounts))
        if not lists:
            raise Unanswered("accounts", missing)
        accounts = sorted((row for some in lists for row in some), key=lambda row: str(row["account"]))
        return self._list("accounts", accounts, missing)

    async def limits(self, account: str) -> Found | None:
        """Return the account's limits and today's use of them, None if no settings have the account."""
        partition = partition_of(account, self._partitions)
        found, missing = await self._one(
            f"/limits?account={quote(account, safe='')}", partition, lambda: self._local.limits(account)
        )
        if found is None and missing:
            raise Unanswered(f"limits of {account}", missing)
        return found

    async def snapshots(self, wanted: Filter) -> Found:
        """Return ``{"snapshots": [...], "incomplete": ..., "missing": [...]}``: what the terminals see now."""
        return await self._of_accounts("snapshots", wanted, self._local.snapshots)

    async def breaks(self, wanted: Filter) -> Found:
        """Return ``{"breaks": [...], "incomplete": ..., "missing": [...]}``: those that stand."""
        return await self._of_accounts("breaks", wanted, self._local.breaks)

    async def alarms(self, wanted: Filter) -> Found:
        """Return ``{"alarms": [...], "incomplete": ..., "missing": [...]}``: those that stand."""
        return await self._of_accounts("alarms", wanted, self._local.alarms)

    async def _of_accounts(self, name: str, wanted: Filter, look: Callable[[Filter], list[Answer]]) -> Found:
        lists, missing = await self._all(f"/{name}", name, {"account": wanted.account}, _now(lambda: look(wanted)))
        if not lists:
            raise Unanswered(name, missing)
        rows = sorted((row for some in lists for row in some), key=lambda row: str(row["account"]))
        return self._list(name, rows, missing)

    async def _one(
        self, path: str, partition: int | None, look: Callable[[], Answer | None]
    ) -> tuple[Found | None, list[str]]:
        """Ask the owner of a partition, then everybody else: an id may only look like ours."""
        owner = None if partition is None else self._peers.owner(partition)
        first = [owner] if owner is not None else []
        rest = [worker for worker in (self._peers.here(), *self._peers.others()) if worker not in first]
        missing: list[str] = []
        for workers in (first, rest):
            replies = await asyncio.gather(*(self._ask(worker, path, look) for worker in workers))
            for worker, reply in zip(workers, replies, strict=True):
                if reply is None:
                    missing.append(str(worker))
                elif reply.body is not None:
                    return Found(reply.body, str(worker)), missing
        return None, missing

    async def _ask(self, worker: URL, path: str, look: Callable[[], Answer | None]) -> Reply | None:
        if worker != self._peers.here():
            return await self._peers.ask(worker, path, {})
        try:
            return Reply(worker, look())
        except Transient:
            return None

    async def _all(
        self, path: str, name: str, wanted: dict[str, Any], own: Awaitable[list[Answer]]
    ) -> tuple[list[list[Answer]], list[str]]:
        """Ask everybody for a list; return the lists that came and who did not answer."""
        query = {key: str(value) for key, value in wanted.items() if value is not None}
        workers = self._peers.others()
        asked = (self._peers.ask(worker, path, query) for worker in workers)
        here, replies = await asyncio.gather(_caught(own), asyncio.gather(*asked))
        lists = [] if here is None else [here]
        missing = [str(self._peers.here())] if here is None else []
        for worker, reply in zip(workers, replies, strict=True):
            found = None if reply is None or reply.body is None else reply.body.get(name)
            if isinstance(found, list):
                lists.append(found)
            else:
                missing.append(str(worker))
        return lists, missing

    async def _with_older_facts(self, found: Found) -> Found:
        body = dict(found.body)
        if not body.pop("older_facts", 0):
            return Found(body, found.by)
        try:
            older = await self._clickhouse(self._rows.facts(body["order_id"]))
        except Transient:
            return Found(body | _gaps([CLICKHOUSE]), found.by)
        kept = {fact["fact_id"]: fact for fact in older}
        body["facts"] = [fact if "body" in fact else kept.get(fact["fact_id"], fact) for fact in body["facts"]]
        return Found(body, found.by)

    async def _clickhouse(self, query: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(CLICKHOUSE_DEADLINE_S):
                return await query
        except TimeoutError:
            raise Transient(f"ClickHouse: expected an answer within {CLICKHOUSE_DEADLINE_S:g} s, got none") from None

    def _list(self, name: str, rows: list[Answer], missing: list[str], **rest: Any) -> Found:
        body = {name: rows, **rest, "incomplete": bool(missing), "missing": sorted(missing)}
        return Found(body, str(self._peers.here()))


def _gaps(missing: list[str]) -> Answer:
    return {"incomplete": True, "missing": sorted(missing)} if missing else {}


def _named(wanted: Filter) -> dict[str, Any]:
    return {
        "status": wanted.status,
        "symbol": wanted.symbol,
        "account": wanted.account,
        "strategy": wanted.strategy,
        "signal_id": wanted.signal_id,
        "limit": wanted.limit,
    }


def _newest(orders: Iterable[Answer]) -> list[Answer]:
    found: dict[str, Answer] = {}
    for order in orders:
        known = found.get(order["order_id"])
        if known is None or order["rev"] > known["rev"]:
            found[order["order_id"]] = order
    return list(found.values())


async def _caught(rows: Awaitable[list[Answer]]) -> list[Answer] | None:
    try:
        return await rows
    except Transient:
        return None


async def _now(look: Callable[[], list[Answer]]) -> list[Answer]:
    return look()
