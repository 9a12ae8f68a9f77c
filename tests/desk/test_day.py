"""A trading day on the desk: its steps, durable with what they are told by, and what ends with it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.limits import set_limits
from streamapp.desk.state import Draft
from streamapp.desk.trading import set_trading
from streamapp.domain.facts import AccountOperation
from streamapp.domain.identifiers import partition_of
from streamapp.domain.trading import TradingState
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.settings import AccountSettings, GuardSettings, Settings
from tables.accounts import AccountRow
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.market import Market

MIDNIGHT = NOW + timedelta(hours=10)
LOSS = {"max_daily_loss": "1000"}


class Account:
    """An account whose terminal says its money every 2 s."""

    def __init__(self, world: DeskWorld) -> None:
        self.world = world
        self.balance = Decimal(10_000)
        self.floating = Decimal(0)
        self.offset_s = 7200
        self._seq = 0

    async def snapshot(self, count: int = 1) -> Account:
        for _ in range(count):
            self.world.later(2)
            at = self.world.clock.now
            state = AccountMessage(
                account=ACCOUNT,
                connection="ready",
                trading="open",
                balance=self.balance,
                credit=Decimal(0),
                equity=self.balance + self.floating,
                currency="USD",
                server_offset_s=self.offset_s,
                at=at,
            )
            made = SnapshotMessage(account=ACCOUNT, state=state, at=at)
            await self.world.give(made.encode(), topics.ACCOUNT_SNAPSHOTS, "snapshot")
            await self.world.settled()
        return self

    async def lose(self, amount: int) -> Account:
        self.floating -= amount
        return await self.snapshot(4)

    async def book(self, deal: int, amount: int) -> None:
        self._seq += 1
        body = AccountOperation(deal=deal, type="balance", amount=Decimal(amount), at=self.world.clock.now)
        await self.world.report(("account_operation", None, body), first_seq=self._seq)

    async def sleep_until(self, moment: Any) -> None:
        self.world.clock.now = moment

    @property
    def row(self) -> AccountRow:
        row = self.world.account_row()
        assert row is not None
        return row

    @property
    def trading(self) -> tuple[str, str]:
        return self.row.trading.state, self.row.trading.by

    @property
    def told(self) -> tuple[str, str]:
        last = self.world.published("account/1")[-1]
        return last["trading"], last["trading_cause"] or last["detail"]

    async def person(self, state: Any, *, until: Any = None) -> None:
        """Let a person set the trading state, as a command does."""
        await self._put(lambda draft: set_trading(draft, state, "for a reason", by="mara", until=until))

    async def limit(self, **changes: Any) -> None:
        await self._put(lambda draft: set_limits(draft, changes, by="mara"))

    async def _put(self, change: Any) -> None:
        world = self.world
        draft = Draft(ACCOUNT, world.clock.now, world.policy, world.row)
        change(draft)
        await world.store.commit(partition_of(ACCOUNT, 8), {key: row.encode() for key, row in draft.changed.items()})
        await world.restart()
        await self.snapshot(4)


async def account_of(guards: dict[str, Any]) -> Account:
    """Return an account whose day has begun."""
    settings = Settings(accounts={ACCOUNT: AccountSettings(login=1)}, guards=GuardSettings.model_validate(guards))
    account = Account(await DeskWorld(settings).start())
    return await account.snapshot(8)


def alarms(account: Account) -> dict[str, float]:
    counter = account.world.metrics.day_steps
    return {step: counter.labels(step)._value.get() for step in ("warned", "reducing", "locked")}


async def opens(account: Account, name: str) -> str | None:
    """Return why a signal opens nothing, None if it does."""
    await account.world.signal(name)
    return next((each["reason"] for each in account.world.published("refused/1") if each["signal_id"] == name), None)


async def test_the_steps_of_a_day_are_durable_counted_and_told_with_their_cause() -> None:
    account = await account_of(LOSS)
    await account.lose(800)
    cause = "max_daily_loss: expected a loss of 1000 USD at most since the broker's midnight, got 800"
    assert account.told == ("open", f"warning: {cause}")
    assert await opens(account, "s-1") is None
    await account.lose(100)
    assert account.trading == ("reducing", "guard max_daily_loss")
    assert await opens(account, "s-2") == "halted"
    await account.lose(100)
    state = account.row.trading
    assert (state.state, state.by, state.until) == ("halted", "guard max_daily_loss", MIDNIGHT)
    assert account.told[0] == "halted"
    assert account.told[1].endswith("since the broker's midnight, got 1000")
    assert alarms(account) == dict.fromkeys(("warned", "reducing", "locked"), 1)
    assert await opens(account, "s-3") == "halted"


@pytest.mark.parametrize("lost", [850, 950, 2000])
async def test_a_step_is_taken_once_whatever_restarts_come_between(lost: int) -> None:
    account = await account_of(LOSS)
    await account.lose(lost)
    steps = {"warned": 1, "reducing": int(lost >= 900), "locked": int(lost >= 1000)}
    assert alarms(account) == steps
    for _ in range(2):
        before = account.row
        await account.world.restart()
        await account.snapshot(6)
        assert alarms(account) == dict.fromkeys(steps, 0)
        assert (account.row.trading, account.row.day) == (before.trading, before.day)


async def test_a_highest_equity_is_durable_at_once_where_a_drawdown_is_limited() -> None:
    account = await account_of({"max_drawdown": "1000"})
    await account.lose(-5000)
    await account.world.restart()
    await account.snapshot(4)
    await account.lose(1000)
    assert account.trading == ("halted", "guard max_drawdown")
    day = account.row.day
    assert day is not None
    assert day.highest == 15_000


async def test_a_withdrawal_is_no_loss_whether_it_is_booked_before_or_after_a_snapshot_shows_it() -> None:
    account = await account_of(LOSS)
    account.balance -= 5000
    await account.snapshot()
    await account.book(7, -5000)
    await account.snapshot(5)
    await account.book(8, -4000)
    await account.snapshot()
    account.balance -= 4000
    await account.snapshot(5)
    assert (alarms(account)["warned"], account.row.trading.state) == (0, "trading")
    await account.lose(800)
    assert alarms(account)["warned"] == 1


async def test_a_lock_ends_by_itself_at_the_brokers_midnight_and_a_new_day_begins() -> None:
    account = await account_of(LOSS)
    await account.lose(1000)
    await account.sleep_until(MIDNIGHT - timedelta(seconds=1))
    assert await opens(account, "s-1") == "halted"
    await account.sleep_until(MIDNIGHT)
    assert await opens(account, "s-2") is None
    assert account.row.trading.state == "trading"
    await account.snapshot(5)
    assert account.told == ("open", "")
    await account.lose(999)
    assert account.trading[0] == "reducing"


@pytest.mark.parametrize("state", ["reducing", "halted"])
async def test_what_a_person_has_set_is_not_weakened_by_a_step_nor_lifted_by_a_new_day(state: str) -> None:
    account = await account_of(LOSS)
    await account.person(state)
    await account.lose(950)
    assert account.trading == (state, "mara")
    await account.lose(50)
    assert account.trading == ("halted", "guard max_daily_loss" if state == "reducing" else "mara")
    await account.sleep_until(MIDNIGHT)
    await account.snapshot(5)
    assert account.trading == (state, "mara")
    await account.sleep_until(MIDNIGHT + timedelta(days=3))
    await account.snapshot(2)
    assert account.trading == (state, "mara")


async def test_a_persons_halt_that_is_over_leaves_the_days_lock_in_place() -> None:
    account = await account_of(LOSS)
    await account.person("halted", until=NOW + timedelta(hours=2))
    await account.lose(1000)
    assert account.trading == ("halted", "mara")
    await account.sleep_until(NOW + timedelta(hours=2))
    await account.snapshot()
    assert account.trading == ("halted", "guard max_daily_loss")
    await account.sleep_until(MIDNIGHT)
    await account.snapshot()
    assert account.row.trading.state == "trading"


async def test_a_halt_with_an_end_ends_by_itself() -> None:
    account = await account_of({})
    await account.person("halted", until=NOW + timedelta(hours=2))
    assert await opens(account, "s-1") == "halted"
    await account.sleep_until(NOW + timedelta(hours=2))
    assert await opens(account, "s-2") is None
    assert account.row.trading == TradingState(since=NOW + timedelta(hours=2))


async def test_who_resumes_a_locked_account_is_not_locked_again_on_that_day_unless_the_limit_is_set_anew() -> None:
    account = await account_of(LOSS)
    await account.lose(1000)
    await account.person("trading")
    await account.lose(1000)
    assert account.row.trading.state == "trading"
    await account.limit(max_daily_loss="2100")
    assert account.trading == ("reducing", "guard max_daily_loss")
    await account.lose(100)
    assert account.trading == ("halted", "guard max_daily_loss")


@pytest.mark.parametrize(("before", "after"), [(7200, 10_800), (10_800, 7200)])
async def test_a_servers_clock_that_is_set_neither_ends_a_lock_early_nor_prolongs_it_by_a_day(
    before: int, after: int
) -> None:
    account = await account_of(LOSS)
    account.offset_s = before
    await account.lose(1000)
    account.offset_s = after
    await account.snapshot()
    midnight = NOW + timedelta(hours=12, seconds=-after)
    await account.sleep_until(midnight - timedelta(seconds=10))
    await account.snapshot()
    assert account.trading[0] == "halted"
    await account.sleep_until(midnight + timedelta(hours=1))
    await account.snapshot()
    assert account.trading[0] == "trading"


async def test_a_snapshot_of_another_day_begins_no_day_and_takes_no_step() -> None:
    account = await account_of(LOSS)
    old = AccountMessage(account=ACCOUNT, connection="ready", balance=Decimal(1), equity=Decimal(1), at=NOW)
    await account.world.restart()
    account.world.later(86_400 * 2)
    at = NOW + timedelta(hours=1)
    await account.world.snapshot(old, at=at)
    assert account.row.trading.state == "trading"


@pytest.mark.parametrize("halted", [False, True])
async def test_a_lock_closes_what_is_open_whether_or_not_a_person_has_halted_the_account(halted: bool) -> None:
    account = await account_of(LOSS)
    market = Market(account.world)
    await account.world.signal("s-1")
    await market.run()
    if halted:
        await account.person("halted")
    await account.lose(1000)
    await market.run()
    assert market.open == {}
    assert account.trading == ("halted", "mara" if halted else "guard max_daily_loss")
    results = [
        (each["command"], each["state"], each["issued_by"]) for each in account.world.published("command_result/1")
    ]
    by = "guard max_daily_loss"
    assert results == [("account.flatten", "accepted", by), ("account.flatten", "done", by)]


async def test_silence_changes_nothing() -> None:
    account = await account_of(LOSS)
    before = account.row
    away = AccountMessage(account=ACCOUNT, connection="disconnected", trading="not_ready", at=account.world.clock.now)
    account.world.later(2)
    await account.world.snapshot(away)
    assert account.row.day == before.day
    assert account.told == ("not_ready", "")


async def test_who_only_calls_himself_a_guard_is_not_lifted_by_a_new_day() -> None:
    account = await account_of(LOSS)
    await account._put(lambda draft: set_trading(draft, "halted", "for a reason", by="guard dog"))
    await account.sleep_until(MIDNIGHT)
    await account.snapshot(5)
    assert account.trading == ("halted", "guard dog")
