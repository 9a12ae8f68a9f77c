"""A connection is believed when it is synchronised, and made again whenever it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import Clock, utc_now
from streamapp.domain.vocabulary import time_text
from streamapp.messages.report import ConnectionChange, Report
from streamapp.mt5.retcodes import IPC_ERRORS
from streamapp.processes.backoff import Backoff
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal.account import connection as module
from streamapp.terminal.account.connection import (
    BLIND_S,
    FIRST_LOGIN_S,
    LONGEST_LOGIN_S,
    BrokerConnection,
)
from streamapp.terminal.account.synchronisation import END_OF_TIME_S
from streamapp.terminal.account.worker_client import NotHandedOverError
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.pipe.answers import DealsSeen
from streamapp.terminal.pipe.calls import Look, Prepare, ReadDeals, Search, Send
from tests.kit.waiting import eventually
from tests.terminal.conftest import Account
from tests.terminal.scripted import ACCOUNT, LOGIN, OWNER, SERVER, SERVER_AHEAD_S, TERMINAL, ScriptedWorker, tick

SEARCH = Search((), 1, 2, 1)
Connect = Callable[..., Awaitable[BrokerConnection]]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """A connection on a worker whose script is there before its first look."""
    journal = Journal(tmp_path / "journal.sqlite3", ACCOUNT)
    tasks = [asyncio.create_task(journal.run())]

    async def start(
        worker: ScriptedWorker, *, clock: Clock = utc_now, symbols: Sequence[str] = (), **account: Any
    ) -> BrokerConnection:
        settings = TerminalSettings(poll_interval_s=0.01, equal_reads_s=0.02)
        owner = AccountSettings(login=LOGIN, server=SERVER, **account)
        connection = BrokerConnection(worker, journal, owner, settings, clock=clock, password=None, symbols=symbols)
        tasks.append(asyncio.create_task(connection.run()))
        return connection

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    journal.close()


def asked(worker: ScriptedWorker, operation: str) -> list[dict[str, Any]]:
    return [arguments for name, arguments in worker.asked if name == operation]


def looks(worker: ScriptedWorker, *digests: int | None) -> None:
    """Let the looks at the past be these, and the last one for ever."""
    left = list(digests)
    worker.answers["past"] = lambda _: {"digest": left.pop(0) if len(left) > 1 else left[0], "lacking": ""}


async def told(connection: BrokerConnection) -> list[str]:
    rows = await connection._journal.write(lambda book: book.outbox(0, 1000))
    bodies = [Report.model_validate_json(payload).body for _, payload in rows]
    return [body.connection for body in bodies if isinstance(body, ConnectionChange)]


async def test_it_is_not_ready_before_two_looks_at_the_past_are_equal(connect: Connect) -> None:
    worker = ScriptedWorker()
    looks(worker, 1, 2, None, 2, 3, 3)
    connection = await connect(worker)
    await eventually(lambda: "synchronising" in connection.health.detail)
    assert not connection.is_readable
    await connection.ready()
    assert len(asked(worker, "past")) == 6
    assert await told(connection) == ["connecting", "ready"]


async def test_a_past_that_lacks_what_must_be_there_is_not_believed_however_equal(connect: Connect) -> None:
    worker = ScriptedWorker()
    worker.answers["past"] = lambda _: {"digest": 1, "lacking": "history has 9 deals and shows 4"}
    connection = await connect(worker)
    await eventually(lambda: len(asked(worker, "past")) > 5)
    assert connection.health.connection == "connecting"
    assert "history has 9 deals and shows 4" in connection.health.detail
    looks(worker, 2)
    await connection.ready()


async def test_the_looks_count_what_was_before_the_moment_of_connecting(connect: Connect) -> None:
    worker = ScriptedWorker()
    before_s = utc_now().timestamp()
    connection = await connect(worker)
    await connection.ready()
    cuts = {arguments["cut"] for arguments in asked(worker, "past")}
    assert len(cuts) == 1
    assert int(before_s) <= cuts.pop() - SERVER_AHEAD_S <= utc_now().timestamp() + 1


async def test_before_the_servers_clock_is_known_everything_counts_and_nothing_is_ready(connect: Connect) -> None:
    worker = ScriptedWorker()
    worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": None}
    connection = await connect(worker)
    await eventually(lambda: "no fresh tick" in connection.health.detail)
    assert asked(worker, "past")[0]["cut"] == END_OF_TIME_S
    assert (connection.health.connection, connection.is_readable) == ("connecting", False)
    worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()}
    await connection.ready()


async def test_deals_of_earlier_lives_must_be_in_the_history_that_is_looked_at(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    insert = "INSERT INTO deals VALUES (77, 1, 0, 0, NULL, ?, '0.1', 0, '{}')"
    await connection._journal.write(lambda book: book.db.execute(insert, (time_text(utc_now()),)).rowcount)
    await connection.renew()
    await connection.ready()
    assert [arguments["known"] for arguments in asked(worker, "past")][-1] == [77]


@pytest.mark.parametrize(
    "away", [{"terminal": TERMINAL | {"connected": False}}, {"account": OWNER | {"login": 43}}, {"terminal": None}]
)
async def test_one_look_without_connection_or_at_another_account_makes_it_synchronise_again(
    connect: Connect, away: dict[str, Any]
) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    generation, seen = connection.generation, len(asked(worker, "past"))
    good = worker.answers["pulse"]

    def once(_: dict[str, Any]) -> Any:
        worker.answers["pulse"] = good
        return good({}) | away

    worker.answers["pulse"] = once
    await eventually(lambda: connection.generation > generation)
    await connection.ready()
    assert len(asked(worker, "past")) >= seen + 2
    assert len(asked(worker, "initialize")) == 1
    assert (await told(connection))[-2:] == ["connecting", "ready"]


async def test_a_look_whose_read_fails_says_which_and_not_that_there_is_no_connection(connect: Connect) -> None:
    worker, text = ScriptedWorker(), "account_info: Terminal: Call failed (-1)"
    good = worker.answers["pulse"]
    worker.answers["pulse"] = lambda _: good({}) | {"account": None, "unread": text}
    connection = await connect(worker)
    await eventually(lambda: text in connection.health.detail)
    assert connection.health.connection == "connecting"
    worker.answers["pulse"] = good
    await connection.ready()
    assert "disconnected" not in await told(connection)


async def test_another_accounts_money_is_never_taken_for_ours(connect: Connect) -> None:
    worker = ScriptedWorker()
    stranger = OWNER | {"login": 43, "currency": "JPY", "margin_mode": 0}
    worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": stranger, "tick": tick()}
    connection = await connect(worker)
    await eventually(lambda: connection.health.connection == "wrong_account")
    assert (connection.account_info, connection.currency, connection.hedging) == (None, "", True)
    assert asked(worker, "past") == []


async def test_a_read_that_came_while_the_terminal_was_away_is_not_believed(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    generation = connection.generation
    worker.away = "the terminal is logged in to 43 on Other"
    with pytest.raises(NotHandedOverError, match="logged in to 43"):
        await connection.read_now(SEARCH)
    assert connection.generation > generation
    with pytest.raises(NotHandedOverError):
        await connection.read_now(SEARCH)
    worker.away = None
    assert (await connection.read(SEARCH)).value.read


async def test_all_who_ask_for_a_look_share_one_exchange(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    deals = ReadDeals(1, 1, settled_until=1, until=1, wide=True)
    seen = await asyncio.gather(connection.ride(Look(positions=True)), connection.ride(Look(deals=deals)))
    assert [each.deals and each.deals.value for each in seen] == [DealsSeen(read=True, digest=1)] * 2
    (parts,) = [arguments["parts"] for arguments in asked(worker, "look") if arguments["parts"]]
    assert parts.keys() == {"positions", "deals"}


@pytest.mark.parametrize("away", [{"terminal": TERMINAL | {"connected": False}}, {"account": OWNER | {"login": 43}}])
async def test_what_a_look_read_is_not_believed_if_the_terminal_is_away_after_it(
    connect: Connect, away: dict[str, Any]
) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()} | away
    with pytest.raises(NotHandedOverError):
        await connection.ride(Look(positions=True))
    assert len([each for each in asked(worker, "look") if each["parts"]]) == 1


async def test_who_waits_for_a_look_hears_at_once_that_the_connection_is_lost(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    waiting = asyncio.create_task(connection.ride(Look(positions=True)))
    await asyncio.sleep(0)
    worker.answers["initialize"] = lambda _: NotHandedOverError("starting")
    await connection.renew()
    with pytest.raises(NotHandedOverError):
        await waiting


async def test_an_answer_that_comes_after_the_connection_was_made_again_is_not_believed(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()

    good = worker.answers["prepare"]

    def renewed(asked: dict[str, Any]) -> Any:
        connection._lose()
        return good(asked)

    worker.answers["prepare"] = renewed
    with pytest.raises(NotHandedOverError, match="made again"):
        await connection.read_now(Prepare("EURUSD"))


async def test_an_account_that_may_not_trade_is_readable_and_not_ready(connect: Connect) -> None:
    worker = ScriptedWorker()
    off = TERMINAL | {"trade_allowed": False}
    worker.answers["pulse"] = lambda _: {"terminal": off, "account": OWNER, "tick": tick()}
    connection = await connect(worker)
    await connection.readable()
    assert connection.health.connection == "no_algo_trading"
    ready = asyncio.create_task(connection.ready())
    worker.answers["pulse"] = lambda _: {"terminal": TERMINAL, "account": OWNER, "tick": tick()}
    await ready
    assert connection.generation == 0  # permissions say nothing about what is shown


async def test_renewing_gives_a_fresh_worker_and_a_new_generation(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    generation = connection.generation
    await connection.renew()
    assert not worker.is_alive
    assert not connection.is_readable
    await connection.ready()
    assert (worker.starts, connection.generation > generation) == (2, True)


async def test_after_an_order_that_took_long_it_is_synchronised_again(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    generation, worker.took_s = connection.generation, BLIND_S
    await connection.ask(Send({}, 1.0))
    assert not connection.is_readable
    await connection.ready()
    assert (worker.starts, connection.generation) == (1, generation + 1)


@pytest.mark.parametrize("code", sorted(IPC_ERRORS))
async def test_after_every_ipc_error_it_is_initialised_and_synchronised_again(connect: Connect, code: int) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    generation, before = connection.generation, len(worker.asked)
    good = worker.answers["initialize"]

    def mended(arguments: dict[str, Any]) -> Any:
        worker.broken = None
        return good(arguments)

    worker.answers["initialize"] = mended
    worker.broken = (code, "IPC")
    await eventually(lambda: connection.generation > generation)
    await connection.ready()
    after = [operation for operation, _ in worker.asked[before:]]
    broke_at = after.index("initialize")
    assert [name for name in after[:broke_at] if name not in {"look", "pulse", "past"}] == []
    assert after[broke_at:].count("past") >= 2
    assert worker.starts == 1


async def test_it_is_tried_again_until_the_terminal_lets_it_in(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_LOGIN_S", 0.01)
    worker = ScriptedWorker()
    left = [False, False, True]
    worker.answers["initialize"] = lambda _: {"done": left.pop(0)}
    worker.error = (-6, "Terminal: Authorization failed")
    connection = await connect(worker)
    await connection.ready()
    assert await told(connection) == ["wrong_password", "connecting", "ready"]


def test_refused_logins_come_ever_more_slowly_and_are_some_dozens_a_day() -> None:
    waits, logins, day_s = Backoff(FIRST_LOGIN_S, LONGEST_LOGIN_S), 1, 86400.0
    while (day_s := day_s - waits.next_s()) > 0:
        logins += 1
    assert logins < 100
    assert waits.next_s() >= LONGEST_LOGIN_S / 2


async def test_an_empty_market_watch_gets_the_symbols_of_the_settings_and_of_an_order_that_waits(
    connect: Connect,
) -> None:
    worker = ScriptedWorker()
    empty = {"terminal": TERMINAL, "account": OWNER, "tick": None}
    worker.answers["pulse"] = lambda pulse: empty | {"selected": list(pulse["symbols"])}
    connection = await connect(worker, symbols=("XAUUSD",))
    connection.want("BTCUSD")
    await eventually(
        lambda: "nothing in Market Watch was quoted, now it has XAUUSD, BTCUSD" in connection.health.detail
    )
    assert connection.health.connection == "connecting"
    worker.answers["pulse"] = lambda _: empty | {"tick": tick()}
    await connection.ready()


async def more_looks(worker: ScriptedWorker, number: int) -> None:
    until = len(asked(worker, "pulse")) + number
    await eventually(lambda: len(asked(worker, "pulse")) > until)


class SteppedClock:
    """Ours, with steps that a person makes."""

    step_s = 0.0

    def __call__(self) -> datetime:
        return utc_now() + timedelta(seconds=self.step_s)


async def test_our_own_clock_that_is_set_back_is_not_taken_for_a_change_of_the_servers(connect: Connect) -> None:
    worker, clock = ScriptedWorker(), SteppedClock()
    connection = await connect(worker, clock=clock)
    await connection.ready()
    for step_s in (-600.0, -3600.0, -60.0):
        clock.step_s = step_s
        await more_looks(worker, 5)
        assert connection.time.offset_s == SERVER_AHEAD_S


async def test_a_clock_of_ours_that_was_wrong_from_the_start_may_be_set_right(connect: Connect) -> None:
    worker, clock = ScriptedWorker(), SteppedClock()
    clock.step_s = 600.0
    connection = await connect(worker, clock=clock)
    await connection.ready()
    assert connection.time.offset_s == pytest.approx(SERVER_AHEAD_S - 600, abs=1)
    clock.step_s = 0.0
    await eventually(lambda: connection.time.offset_s == SERVER_AHEAD_S)


async def test_a_clock_of_ours_that_went_ahead_and_came_back_leaves_the_servers_where_it_was(connect: Connect) -> None:
    worker, clock = ScriptedWorker(), SteppedClock()
    connection = await connect(worker, clock=clock)
    await connection.ready()
    for _ in range(2):
        clock.step_s = 3600.0
        await eventually(lambda: connection.time.offset_s == SERVER_AHEAD_S - 3600)
        clock.step_s = 0.0
        await eventually(lambda: connection.time.offset_s == SERVER_AHEAD_S)


async def test_a_clock_of_ours_that_went_ahead_and_came_back_without_a_tick_leaves_the_servers_where_it_was(
    connect: Connect,
) -> None:
    worker, clock = ScriptedWorker(), SteppedClock()
    connection = await connect(worker, clock=clock)
    await connection.ready()
    moving, still = worker.answers["pulse"], {"terminal": TERMINAL, "account": OWNER, "tick": tick()}
    worker.answers["pulse"] = lambda _: still
    for step_s in (3600.0, 0.0):
        clock.step_s = step_s
        await more_looks(worker, 3)
    worker.answers["pulse"] = moving
    await more_looks(worker, 5)
    assert connection.time.offset_s == SERVER_AHEAD_S


async def test_a_clock_of_ours_that_goes_back_and_forth_is_behind_each_time(connect: Connect) -> None:
    worker, clock = ScriptedWorker(), SteppedClock()
    connection = await connect(worker, clock=clock)
    await connection.ready()
    for step_s in (-3600.0, 0.0, -3600.0, 0.0, -3600.0):
        clock.step_s = step_s
        await more_looks(worker, 5)
        assert connection.time.offset_s == SERVER_AHEAD_S  # so that a tick shows that ours is wrong, and nothing opens


async def test_the_servers_clock_is_followed_while_its_symbols_trade(connect: Connect) -> None:
    worker = ScriptedWorker()
    connection = await connect(worker)
    await connection.ready()
    for change_s in (-3600.0, 0.0, -1000.0, 86400.0):
        pulse = {"terminal": TERMINAL, "account": OWNER}
        worker.answers["pulse"] = lambda _, pulse=pulse, age_s=-change_s: pulse | {"tick": tick(age_s)}  # type: ignore[misc]
        await more_looks(worker, 4)
        assert connection.time.offset_s == pytest.approx(SERVER_AHEAD_S + change_s, abs=1)
    assert connection.health.connection == "ready"


async def test_portable_is_said_only_with_the_path_of_a_terminal(connect: Connect, tmp_path: Path) -> None:
    worker = ScriptedWorker()
    await (await connect(worker, terminal_portable=True)).ready()
    assert asked(worker, "initialize")[0]["portable"] is None
    path = tmp_path / "terminal64.exe"
    terminal = TERMINAL | {"path": str(tmp_path)}
    other = ScriptedWorker()
    other.answers["pulse"] = lambda _: {"terminal": terminal, "account": OWNER, "tick": tick()}
    await (await connect(other, terminal_portable=True, terminal_path=path)).ready()
    assert (asked(other, "initialize")[0]["path"], asked(other, "initialize")[0]["portable"]) == (str(path), True)


async def test_an_order_waits_until_the_terminal_is_believed(account: Account) -> None:
    await account.connection.ready()
    account.worker.answers["past"] = lambda _: {"digest": None, "lacking": "a table can't be read"}
    await account.connection.renew()
    await account.submit()
    await eventually(lambda: len(asked(account.worker, "past")) > 5)
    assert account.worker.sends == []
    looks(account.worker, 1)
    await eventually(lambda: account.worker.sends)
