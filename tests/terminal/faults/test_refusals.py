"""Refusals and permissions: an order is sent again only after proof that nothing was executed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk, proves

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Refusal(NamedTuple):
    kind: str
    retcode: int
    name: str


REFUSALS = [
    Refusal("reject", 10006, "reject"),
    Refusal("market_closed", 10018, "market_closed"),
    Refusal("off_quotes", 10021, "price_off"),
    Refusal("frozen", 10029, "frozen"),
]
PASSING = [
    Refusal("requote", 10004, "requote"),
    Refusal("price_changed", 10020, "price_changed"),
    Refusal("too_many_requests", 10024, "too_many_requests"),
]
AGAIN = ("returned", "started", "rejected")


@proves(*(row.kind for row in REFUSALS))
@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.kind)
async def test_a_refusal_of_the_server_is_a_rejection_and_is_never_tried_again(desk: Desk, row: Refusal) -> None:
    desk.fault(row.kind, nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "rejected")
    assert (bodies["returned"].retcode, bodies["rejected"].retcode) == (row.retcode, row.retcode)
    assert (bodies["rejected"].retcode_name, bodies["rejected"].ticket) == (row.name, None)
    assert desk.orders_of(order) == []
    (entry,) = await eventually(lambda: desk.logged(order))
    assert entry.response["retcode"] == row.retcode
    assert (await desk.terminal.submit(order)).state == "result"
    assert desk.connections() == []
    await desk.close()


@proves(*(row.kind for row in PASSING))
@pytest.mark.parametrize("row", PASSING, ids=lambda row: row.kind)
async def test_after_a_refusal_that_passes_the_order_is_sent_again_and_executed_once(desk: Desk, row: Refusal) -> None:
    desk.fault(row.kind, nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, "started", *AGAIN, "returned", "accepted", "deal")
    assert (bodies["rejected"].retcode_name, bodies["rejected"].attempt) == (row.name, 1)
    assert len(desk.orders_of(order)) == 1
    assert (await desk.terminal.submit(order)).state == "result"
    await desk.close(sends=2)


async def test_a_refusal_that_does_not_pass_is_a_rejection_after_a_few_attempts(desk: Desk) -> None:
    desk.fault("requote")
    order = await desk.submit()
    bodies = await desk.says(order, "started", *AGAIN, *AGAIN, "returned", "rejected")
    assert (bodies["rejected"].retcode, bodies["rejected"].attempt) == (10004, 3)
    assert desk.orders_of(order) == []
    await desk.close(sends=3)


@pytest.mark.parametrize("retcode", [10007, 10013, 10014, 10015, 10016, 10019, 10022, 10033, 10034, 10040, 10046])
async def test_every_other_definite_code_is_a_rejection_too(desk: Desk, retcode: int) -> None:
    desk.fault("reject", nth=1, params={"retcode": retcode})
    bodies = await desk.submits("started", "returned", "rejected")
    assert bodies["rejected"].retcode == retcode
    await desk.close()


@pytest.mark.parametrize("retcode", [0, 10011, 10036, 4_000_000_000])
async def test_a_code_that_proves_nothing_is_a_doubt_and_absent_once_nothing_is_found(desk: Desk, retcode: int) -> None:
    desk.fault("reject", nth=1, params={"retcode": retcode})
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "unknown", "absent")
    assert bodies["unknown"].why == "ambiguous_answer"
    assert desk.orders_of(order) == []
    await desk.close()


@proves("locked")
async def test_a_locked_request_is_a_doubt_since_another_one_may_be_in_progress(desk: Desk) -> None:
    desk.fault("locked", nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "unknown", "absent")
    assert (bodies["returned"].retcode, bodies["unknown"].why) == (10028, "ambiguous_answer")
    assert desk.orders_of(order) == []
    await desk.close()


class Permission(NamedTuple):
    kind: str
    kinds: tuple[str, ...]
    code: int


PERMISSIONS = [
    Permission("autotrading_off", ("started", "returned", "rejected"), 10027),
    Permission("investor", ("started", "returned", "rejected"), 10017),
    Permission("server_disables_ea", ("started", "returned", "rejected"), 10026),
    Permission("api_disabled", ("started", "returned", "refused"), -8),
]


@proves(*(row.kind for row in PERMISSIONS))
@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: row.kind)
async def test_a_permission_that_ends_in_the_moment_of_sending_ends_the_order_and_stops_the_next(
    desk: Desk, row: Permission
) -> None:
    desk.fault(row.kind, nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, *row.kinds)
    told = bodies["returned"]
    assert (told.retcode or told.raw["last_error"][0]) == row.code
    assert told.request_id == 0
    await desk.becomes("no_algo_trading")
    assert "Algo Trading" in desk.detail("no_algo_trading")
    refused = await desk.submits("refused")
    assert refused["refused"].reason == "not_connected"
    assert desk.orders_of(order) == []
    desk.end_faults()
    await desk.terminal.ready()
    await desk.submits(*ACCEPTED)
    assert desk.connections() == ["no_algo_trading", "ready"]
    await desk.close(sends=2)


@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: row.kind)
async def test_a_permission_that_is_gone_is_seen_before_anything_is_sent(desk: Desk, row: Permission) -> None:
    desk.fault(row.kind)
    await desk.becomes("no_algo_trading")
    refused = await desk.submits("refused")
    assert refused["refused"].reason == "not_connected"
    await desk.close(sends=0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"symbol": "NOSUCH"}, "invalid"),
        ({"volume": Decimal("0.015")}, "invalid"),
        ({"volume": Decimal("0.001")}, "invalid"),
        ({"volume": Decimal(501)}, "invalid"),
        ({"stop_loss": Decimal("1.5")}, "invalid"),
        ({"take_profit": Decimal("0.9")}, "invalid"),
        ({"stop_loss": Decimal("0.005")}, "guard"),
        ({"take_profit": Decimal("5.0")}, "guard"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
async def test_what_the_symbol_does_not_take_is_refused_and_never_sent(
    desk: Desk, changes: dict[str, Any], reason: str
) -> None:
    bodies = await desk.submits("refused", **changes)
    assert bodies["refused"].reason == reason
    await desk.close(sends=0)
