"""What must not be adopted silently: it stops the account from opening, by every road that it can come."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from streamapp.domain.identifiers import magic_of
from streamapp.messages.operation import OperationReply, ResumeReply, ResumeRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import OTHER_LOGIN, Market, TerminalProcess
from tests.terminal.desk import ACCEPTED, Desk, proves

DOUBT = ("started", "returned", "unknown")


@pytest.fixture
async def desk(terminal: TerminalProcess, market: Market) -> Desk:
    terminal.start()
    desk = Desk(terminal, market, count())
    await desk.open()
    return desk


async def halted(desk: Desk) -> str:
    """Wait until the process says that it opens nothing more, see that it does not, and return why."""

    def reasons() -> list[Any]:
        return [reason for reason in desk.terminal.status()["reasons"] if reason.startswith("halted")]

    (why,) = await eventually(reasons, "halted")
    refused = await desk.submits("refused")
    assert refused["refused"].reason == "halted"
    return str(why)


@proves("duplicate_fill")
async def test_an_order_that_the_broker_executed_twice_is_booked_twice_and_halts_the_account(desk: Desk) -> None:
    desk.fault("duplicate_fill", nth=1)
    order = await desk.submit()
    await desk.says(order, *ACCEPTED, "accepted", "deal")
    tickets = [row["ticket"] for row in desk.orders_of(order)]
    assert len(tickets) == 2
    assert str(tickets[0]) in await halted(desk)
    await desk.close(sends=1, violations=1)


@proves("duplicate_fill")
async def test_a_duplicate_whose_reply_was_lost_halts_too(desk: Desk) -> None:
    desk.fault("duplicate_fill", nth=1)
    desk.fault("drop_after", nth=1)
    order = await desk.submit()
    await eventually(lambda: sorted(desk.terminal.kinds(order.order_id)[3:]) == ["accepted"] * 2 + ["deal"] * 2)
    assert tuple(desk.terminal.kinds(order.order_id)[:3]) == DOUBT
    await halted(desk)
    await desk.close(sends=1, violations=1)


@proves("foreign_activity")
async def test_another_program_with_our_magic_halts_the_account(desk: Desk) -> None:
    desk.fault("foreign_activity", nth=1, params={"action": "duplicate"})
    order = await desk.submit()
    await desk.says(order, *ACCEPTED, "accepted", "deal")
    await halted(desk)
    await desk.close(sends=1, violations=1)


async def test_a_halt_outlives_the_process(desk: Desk) -> None:
    desk.fault("duplicate_fill", nth=1)
    await desk.submits(*ACCEPTED, "accepted", "deal")
    await halted(desk)
    assert desk.terminal.process is not None
    desk.terminal.process.kill()
    desk.terminal.process.wait()
    desk.terminal.start()
    await desk.terminal.ready()
    await halted(desk)
    await desk.close(sends=1, violations=1)


@proves("account_switched")
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_an_order_that_may_have_gone_to_another_account_halts_ours(desk: Desk, lost: bool) -> None:
    desk.fault("account_switched", nth=1, params={"login": OTHER_LOGIN})
    if lost:
        desk.fault("timeout_executed", nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, *DOUBT)
    assert str(OTHER_LOGIN) in bodies["unknown"].message
    await desk.becomes("wrong_account")
    (there,) = desk.market.ledger("order", OTHER_LOGIN)
    assert there["magic"] == magic_of(order.order_id)
    desk.end_faults()
    await desk.says(order, *DOUBT, "absent")
    assert str(magic_of(order.order_id)) in await halted(desk)
    assert desk.orders_of(order) == []
    await desk.close(sends=1)


async def test_a_person_resumes_a_halted_account_and_the_next_order_goes(desk: Desk) -> None:
    desk.fault("duplicate_fill", nth=1)
    await desk.submits(*ACCEPTED, "accepted", "deal")
    why = await halted(desk)
    request = ResumeRequest(account=desk.terminal.account, issued_by="a person")
    reply = ResumeReply.decode(await desk.terminal.request("resume", request.encode()))
    assert reply.was is not None
    assert reply.was in why
    await desk.submits(*ACCEPTED)
    assert ResumeReply.decode(await desk.terminal.request("resume", request.encode())).was is None
    await desk.close(sends=2, violations=1)


async def test_a_halted_account_still_closes_what_is_open(desk: Desk) -> None:
    desk.fault("duplicate_fill", nth=1)
    bodies = await desk.submits(*ACCEPTED, "accepted", "deal")
    await halted(desk)
    closing = {
        "request_id": "close-1",
        "account": desk.terminal.account,
        "not_after": (datetime.now(UTC) + timedelta(seconds=30)).isoformat(),
        "position_id": bodies["deal"].position_id,
        "epoch": desk.epoch,
    }

    async def closed() -> bool:
        answer = await desk.terminal.request("close", json.dumps(closing).encode())
        return bool(OperationReply.decode(answer).outcome == "done")

    await eventually(closed)
    await desk.close(sends=2, violations=1)
