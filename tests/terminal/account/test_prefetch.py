"""The look ahead saves a read and decides nothing."""

from __future__ import annotations

from typing import Any

from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.account.worker_client import WorkerLostError
from streamapp.terminal.journal.book import Book
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account
from tests.terminal.scripted import TERMINAL, submit_request


def prepares(account: Account) -> int:
    return sum(operation == "prepare" for operation, _ in account.worker.asked)


async def ready(account: Account) -> None:
    await eventually(lambda: account.connection.health.connection == "ready")


async def submitted(account: Account, order: SubmitRequest) -> None:
    """Record an order and see it accepted."""

    def record(book: Book) -> None:
        book.submit(order)

    await account.journal.write(record)
    account.execution.add(order)
    await eventually(lambda: account.execution.counts.get("accepted"))


async def test_an_order_is_judged_by_what_was_read_while_it_was_recorded(account: Account) -> None:
    await ready(account)
    order = submit_request(epoch=account.journal.book.epoch)
    account.execution.foresee(order)
    await submitted(account, order)
    assert prepares(account) == 1


async def test_what_was_read_for_another_order_counts_for_none(account: Account) -> None:
    await ready(account)
    epoch = account.journal.book.epoch
    account.execution.foresee(submit_request("another", epoch=epoch))
    await submitted(account, submit_request("this", epoch=epoch))
    assert prepares(account) == 2


async def test_what_was_read_for_a_conflict_counts_for_none(account: Account) -> None:
    await ready(account)
    epoch = account.journal.book.epoch
    account.execution.foresee(submit_request(epoch=epoch, symbol="GBPUSD"))
    await submitted(account, submit_request(epoch=epoch))
    assert [arguments["symbol"] for operation, arguments in account.worker.asked if operation == "prepare"] == [
        "GBPUSD",
        "EURUSD",
    ]


async def test_what_was_read_over_another_connection_is_read_again(account: Account) -> None:
    await ready(account)
    order = submit_request(epoch=account.journal.book.epoch)
    account.execution.foresee(order)
    account.connection.generation += 1
    await submitted(account, order)
    assert prepares(account) == 2


async def test_nothing_is_read_ahead_where_the_account_can_not_be_traded(account: Account) -> None:
    await ready(account)
    off = {**TERMINAL, "trade_allowed": False}
    pulse = account.worker.answers["pulse"]
    account.worker.answers["pulse"] = lambda arguments: {**pulse(arguments), "terminal": off}
    await eventually(lambda: account.connection.health.connection == "no_algo_trading")
    account.execution.foresee(submit_request(epoch=account.journal.book.epoch))
    assert prepares(account) == 0


async def test_a_look_that_is_lost_is_made_again_and_the_order_is_sent_once(account: Account) -> None:
    await ready(account)
    good = account.worker.answers["prepare"]

    def lost_once(_: dict[str, Any]) -> Any:
        account.worker.answers["prepare"] = good
        return WorkerLostError("the worker ended", deadline=False)

    account.worker.answers["prepare"] = lost_once
    order = submit_request(epoch=account.journal.book.epoch)
    account.execution.foresee(order)
    await submitted(account, order)
    assert len(account.worker.sends) == 1
