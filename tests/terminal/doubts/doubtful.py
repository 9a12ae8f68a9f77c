"""What a doubt is searched in, the rows of the broker's tables, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.messages.report import Report
from streamapp.messages.terminal import SubmitRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account
from tests.terminal.scripted import seen, submit_request, tick

WINDOW_S = 0.3
DOUBT = ("started", "returned", "unknown")
ORDER = submit_request(epoch="")
Tables = dict[str, list[dict[str, Any]]]


def order_row(ticket: int, order: SubmitRequest, **fields: Any) -> dict[str, Any]:
    now = tick()["time_msc"]
    return {
        "ticket": ticket, "magic": magic_of(order.order_id), "comment": tag_of(order.order_id), "symbol": "EURUSD",
        "reason": 3, "type": 0, "volume_initial": 0.1, "volume_current": 0.0, "position_id": ticket, "state": 4,
        "type_filling": 1, "time_setup": now // 1000, "time_setup_msc": now, **fields,
    }  # fmt: skip


def position_row(identifier: int, order: SubmitRequest, **fields: Any) -> dict[str, Any]:
    now = tick()["time_msc"]
    return {
        "ticket": identifier, "identifier": identifier, "magic": magic_of(order.order_id), "comment": "", "reason": 3,
        "symbol": "EURUSD", "type": 0, "volume": 0.1, "time": now // 1000, "time_msc": now, **fields,
    }  # fmt: skip


def searches(account: Account) -> list[dict[str, Any]]:
    return [arguments for operation, arguments in account.worker.asked if operation == "search"]


def shows(account: Account, tables: Callable[[], Tables]) -> None:
    """Let every search from now on show these rows."""
    account.worker.answers["search"] = lambda _: seen(1, **tables())


async def state(account: Account, order: SubmitRequest) -> tuple[str, str | None]:
    row = await account.journal.write(lambda book: book.row(order.order_id))
    assert row is not None
    return row.state, row.reason


async def of_order(account: Account, order: SubmitRequest) -> list[Report]:
    return [report for report in await account.reports() if report.order_id == order.order_id]


async def comes_to(account: Account, order: SubmitRequest, *kinds: str) -> list[Report]:
    async def there() -> bool:
        return [report.kind for report in await of_order(account, order)] == list(kinds)

    await eventually(there, f"{kinds}, got {[report.kind for report in await of_order(account, order)]}")
    return await of_order(account, order)
