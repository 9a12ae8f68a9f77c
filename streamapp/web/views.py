"""The views of a trading worker: any worker answers any question. They change nothing, and speak JSON."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any, get_args

from aiohttp import web

from streamapp.clickhouse.plots import PLOTS, Period
from streamapp.clock import utc_now
from streamapp.domain.vocabulary import Status, in_utc
from streamapp.errors import Transient, Unusable
from streamapp.health import LIVE, READY
from streamapp.web.answers import Answers, Found
from streamapp.web.local import Answer, Filter, Local
from streamapp.web.peers import LOCAL
from streamapp.web.responses import json_response
from streamapp.web.wire import ANSWERED_BY, MOST_ROWS

HealthView = Callable[[], tuple[int, dict[str, Any]]]
"""Returns the status code and body of ``/health``."""
MetricsView = Callable[[], str]

MOST_DAYS = 92
"""Of one plot."""
_STATUSES = get_args(Status)
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class Views:
    """The handlers.

    Args:
        local: What this worker knows.
        answers: What the group knows.
        health: What ``/health`` says, 200 or 503.
        ready: What ``/readyz`` says, 200 or 503.
        metrics: The text of ``/metrics``.
    """

    def __init__(
        self, local: Local, answers: Answers, *, health: HealthView, ready: HealthView, metrics: MetricsView
    ) -> None:
        self._local = local
        self._answers = answers
        self._health = health
        self._ready = ready
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health", self._say_health),
            web.get(LIVE, self._say_alive),
            web.get(READY, self._say_ready),
            web.get("/metrics", self._say_metrics),
            web.get("/orders", _guarded(self._orders)),
            web.get("/orders/{order_id}", _guarded(self._order)),
            web.get("/positions", _guarded(self._positions)),
            web.get("/snapshots", _guarded(self._snapshots)),
            web.get("/breaks", _guarded(self._breaks)),
            web.get("/alarms", _guarded(self._alarms)),
            web.get("/accounts", _guarded(self._accounts)),
            web.get("/accounts/{account}", _guarded(self._account)),
            web.get("/limits", _guarded(self._limits)),
            web.get("/plots/{plot}", _guarded(self._plot)),
        ]

    async def _order(self, request: web.Request) -> web.Response:
        order_id = _name(request, "order_id")
        if _is_inner(request):
            return _maybe(self._local.order(order_id), f"order {order_id}")
        with_older_facts = request.query.get("facts") != "0"
        found = await self._answers.order(order_id, with_older_facts=with_older_facts)
        if found is not None and request.query.get("evidence") == "1":
            found = await self._answers.with_evidence(found)
        return _found(found, f"order {order_id}")

    async def _orders(self, request: web.Request) -> web.Response:
        wanted = _filter(request, "status", "symbol", "account", "strategy", "signal_id", "day", "before", "limit")
        if _is_inner(request):
            return json_response({"orders": await self._local.orders(wanted)})
        return _found(await self._answers.orders(wanted), "orders")

    async def _positions(self, request: web.Request) -> web.Response:
        wanted = _filter(request, "symbol", "account")
        if _is_inner(request):
            return json_response({"positions": self._local.positions(wanted)})
        return _found(await self._answers.positions(wanted), "positions")

    async def _snapshots(self, request: web.Request) -> web.Response:
        wanted = _filter(request, "account")
        if _is_inner(request):
            return json_response({"snapshots": self._local.snapshots(wanted)})
        return _found(await self._answers.snapshots(wanted), "snapshots")

    async def _breaks(self, request: web.Request) -> web.Response:
        wanted = _filter(request, "account")
        if _is_inner(request):
            return json_response({"breaks": self._local.breaks(wanted)})
        return _found(await self._answers.breaks(wanted), "breaks")

    async def _alarms(self, request: web.Request) -> web.Response:
        wanted = _filter(request, "account")
        if _is_inner(request):
            return json_response({"alarms": self._local.alarms(wanted)})
        return _found(await self._answers.alarms(wanted), "alarms")

    async def _accounts(self, request: web.Request) -> web.Response:
        _filter(request)
        if _is_inner(request):
            return json_response({"accounts": self._local.accounts()})
        return _found(await self._answers.accounts(), "accounts")

    async def _account(self, request: web.Request) -> web.Response:
        account = _name(request, "account")
        if _is_inner(request):
            return _maybe(self._local.account(account), f"account {account}")
        return _found(await self._answers.account(account), f"account {account}")

    async def _limits(self, request: web.Request) -> web.Response:
        account = _filter(request, "account").account
        if account is None:
            raise Unusable("bad_query", "account: expected one, got none")
        if _is_inner(request):
            return _maybe(self._local.limits(account), f"limits of {account}")
        return _found(await self._answers.limits(account), f"limits of {account}")

    async def _plot(self, request: web.Request) -> web.Response:
        name = request.match_info["plot"]
        if name not in PLOTS:
            raise Unusable("bad_query", f"expected one of the plots {', '.join(PLOTS)}, got {name!r:.140}")
        wanted = _filter(request, "day", "days", "account", "symbol")
        if name == "fills" and wanted.symbol is None:
            raise Unusable("bad_query", "symbol: expected one, got none")
        days = _number("days", request.query.get("days", "1"), MOST_DAYS)
        period = Period(wanted.day or utc_now().date(), days, wanted.account, wanted.symbol)
        return _found(await self._answers.plot(name, period), f"plot {name}")

    async def _say_health(self, _: web.Request) -> web.Response:
        status, body = self._health()
        return json_response(body, status=status)

    async def _say_alive(self, _: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def _say_ready(self, _: web.Request) -> web.Response:
        status, body = self._ready()
        return json_response(body, status=status)

    async def _say_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._metrics(), content_type="text/plain")


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _guarded(handler: Handler) -> Handler:
    """Turn our errors into their answers: a bad question is 400, a question nobody can answer now is 503."""

    async def guarded(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Unusable as error:
            return json_response({"error": error.detail}, status=400)
        except Transient as error:
            return json_response({"error": str(error), "missing": getattr(error, "missing", [])}, status=503)

    return guarded


def _filter(request: web.Request, *allowed: str) -> Filter:
    given = {name: value for name, value in request.query.items() if name != LOCAL}
    if unknown := given.keys() - set(allowed):
        raise Unusable(
            "bad_query", f"expected {', '.join(allowed) or 'no parameter'}, got {', '.join(sorted(unknown))}"[:300]
        )
    for name, value in given.items():
        if not _NAME.fullmatch(value):
            raise Unusable("bad_query", f"{name}: expected 1 to 128 characters, got {value!r:.140}")
    if (status := given.get("status")) is not None and status not in _STATUSES:
        raise Unusable("bad_query", f"status: expected one of {', '.join(_STATUSES)}, got {status!r:.140}")
    return Filter(
        status,
        given.get("symbol"),
        given.get("account"),
        _number("limit", given.get("limit", "100"), MOST_ROWS),
        given.get("strategy"),
        given.get("signal_id"),
        None if (day := given.get("day")) is None else _day(day),
        None if (before := given.get("before")) is None else _before(before),
    )


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise Unusable("bad_query", f"day: expected one as 2026-11-27, got {text!r:.140}") from None


def _before(text: str) -> tuple[datetime, str]:
    at, _, order_id = text.partition(",")
    try:
        return in_utc(datetime.fromisoformat(at)), order_id
    except ValueError:
        raise Unusable("bad_query", f"before: expected what next has said, got {text!r:.140}") from None


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= most:
        raise Unusable("bad_query", f"{name}: expected 1 to {most}, got {text!r:.140}")
    return int(text)


def _name(request: web.Request, part: str) -> str:
    value = request.match_info[part]
    if not _NAME.fullmatch(value):
        raise Unusable("bad_query", f"{part}: expected 1 to 128 characters, got {value!r:.140}")
    return value


def _is_inner(request: web.Request) -> bool:
    return request.query.get(LOCAL) == "1"


def _found(found: Found | None, what: str) -> web.Response:
    if found is None:
        return json_response({"error": f"{what}: nobody knows of it"}, status=404)
    return json_response(found.body, headers={ANSWERED_BY: found.by})


def _maybe(body: Answer | None, what: str) -> web.Response:
    return json_response({"error": f"{what}: not here"}, status=404) if body is None else json_response(body)
