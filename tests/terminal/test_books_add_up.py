"""Every change of an account's balance is told by a deal or an operation, in each place that adds them up."""

from __future__ import annotations

import asyncio
import random
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.domain import facts
from streamapp.domain.facts import Fact, make_fact
from streamapp.domain.vocabulary import AccountOperationType
from streamapp.messages.account import AccountOperationMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.report import Report
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ACCOUNT_OPERATION_NUMBERS, TRADES
from streamapp.settings import TerminalSettings
from streamapp.simulator.books.tables import BrokerDeal
from streamapp.simulator.server.third_party import DealCorrections
from streamapp.terminal.account.watch import Watch
from streamapp.terminal.pipe.calls import ReadDeals
from streamapp.terminal.worker.history import History
from tests.kit.book import Book as DeskBook
from tests.kit.examples import ACCOUNT as DESK_ACCOUNT
from tests.kit.waiting import eventually
from tests.simulator.markets import new_market, order, pin
from tests.terminal.conftest import Market, TerminalProcess
from tests.terminal.fake_broker import Connection, PromptJournal
from tests.terminal.scripted import ACCOUNT
from tests.terminal.tables import Tables, row

ZERO = Decimal(0)
EVER = 1 << 40
"""A moment of the server's clock that no test reaches, in seconds."""


def shown(deal: BrokerDeal) -> Any:
    """Return a deal as the module shows it."""
    values = {each.name: getattr(deal, each.name) for each in fields(deal) if each.name != "rendered"}
    plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}
    return row("TradeDeal", time=deal.time_msc // 1000, **plain)


class House:
    """A broker's account, the terminal that looks at it, and the desk that is told: all but processes and wires."""

    def __init__(self, mode: str) -> None:
        self.market, self.account = new_market(mode, balance="1000")
        self.corrections = DealCorrections(self.market.books, self.market.positions)
        self.tables = Tables()
        self.history = History(self.tables.calls())
        self.journal = PromptJournal(lambda: datetime.now(UTC))
        connection: Any = Connection(None, hedging=self.account.hedging)  # type: ignore[arg-type]  # no search is made
        journal: Any = self.journal
        self.watch = Watch(journal, connection, TerminalSettings(), clock=lambda: datetime.now(UTC))

    @property
    def deals(self) -> list[BrokerDeal]:
        return list(self.account.history_deals.live.values())

    def trades(self) -> list[BrokerDeal]:
        return [deal for deal in self.deals if deal.type in TRADES]

    def look(self) -> None:
        """Let the terminal read the whole history."""
        self.tables.deals = [shown(deal) for deal in self.deals]
        seen = self.history.deals(ReadDeals(0, near_from=0, settled_until=EVER, until=EVER, wide=True))
        asyncio.run(self.watch._record_all(seen))

    def told(self) -> list[Fact]:
        """Return what the terminal has reported so far, as the desk's facts."""
        reports = [Report.model_validate_json(payload) for _, payload in self.journal.book.outbox(0, 10_000)]
        return [make_fact(DESK_ACCOUNT, report.order_id, report.body, at=report.at) for report in reports]  # type: ignore[arg-type]  # there is no change of connection

    # -- what happens at the broker, by number

    def trade(self, side: int, volume: int, price: int) -> None:
        pin(self.market, f"1.{price:04}", f"1.{price + 1:04}")
        held = list(self.account.positions.live.values())
        closing = {"position": held[0].ticket, "type": 1 - held[0].side} if held and volume % 2 else {"type": side}
        most = held[0].volume if "position" in closing else Decimal(volume)
        order(self.market, self.account, volume=min(Decimal(volume) / 10, most), **closing)

    def operate(self, kind: AccountOperationType, cents: int, pick: int) -> None:
        trades = [None] if kind == "credit" else [None, *self.trades()]
        number, amount = ACCOUNT_OPERATION_NUMBERS[kind], Decimal(cents) / 100
        self.market.positions.balance(self.account, amount, kind, number, trades[pick % len(trades)])

    def rebook(self, cents: int, pick: int) -> None:
        operations = [deal for deal in self.deals if deal.type in ACCOUNT_OPERATION_NUMBERS.values()]
        self.market.positions.rebook(self.account, operations[pick % len(operations)], Decimal(cents) / 100)

    def correct(self, pick: int, points: int) -> None:
        if trades := self.trades():
            deal = trades[pick % len(trades)]
            self.corrections.correct(self.account, deal, deal.price + Decimal(points) / 10_000)

    def bust(self, pick: int) -> None:
        # What a deal had earned that was taken back before anybody saw it, history does not say.
        self.look()
        trades = [deal for deal in self.trades() if deal.entry in (mt5.DEAL_ENTRY_IN, mt5.DEAL_ENTRY_OUT)]
        if self.account.hedging and trades:
            self.corrections.bust(self.account, trades[pick % len(trades)])


CENTS, PICKS = st.integers(-50_000, 50_000), st.integers(0, 100)
STEPS = st.one_of(
    st.tuples(st.just("trade"), st.integers(0, 1), st.integers(1, 9), st.integers(500, 1500)),
    st.tuples(st.just("operate"), st.sampled_from(sorted(ACCOUNT_OPERATION_NUMBERS)), CENTS, PICKS),
    st.tuples(st.just("rebook"), CENTS, PICKS),
    st.tuples(st.just("correct"), PICKS, st.integers(-100, 100)),
    st.tuples(st.just("bust"), PICKS),
    st.tuples(st.just("look")),
)


def newest(messages: list[Any]) -> dict[int, Any]:
    """Return the messages of the highest revision of each deal, as a reader keeps them."""
    return {one.deal: one for one in sorted(messages, key=lambda one: one.revision)}


def money_of(fill: FillMessage) -> Decimal:
    return fill.profit + fill.commission + fill.swap + fill.fee


@pytest.mark.parametrize("mode", ["hedging", "netting"])
@settings(max_examples=60, deadline=None)
@given(script=st.lists(STEPS, max_size=25), chance=st.randoms(use_true_random=False))
def test_all_that_was_told_is_the_balance_whatever_the_broker_did(
    mode: str, script: list[Any], chance: random.Random
) -> None:
    house, desk = House(mode), DeskBook()
    for step, *arguments in script:
        getattr(house, step)(*arguments)
    house.look()
    told = house.told()
    arrived = [*told, *(fact for fact in told if chance.random() < 0.3)]
    chance.shuffle(arrived)
    for fact in arrived:
        desk.add(fact)
    fills = newest([one for one in desk.messages if isinstance(one, FillMessage)])
    operations = newest([one for one in desk.messages if isinstance(one, AccountOperationMessage)])
    booked = [one.amount for one in operations.values() if one.type != "credit"]
    assert sum([*booked, *map(money_of, fills.values())], ZERO) == house.account.balance
    assert sum((one.amount for one in operations.values() if one.type == "credit"), ZERO) == house.account.credit
    assert {deal.ticket for deal in house.deals} == fills.keys() | operations.keys()
    of_positions = [(one.position_id, one.amount) for one in operations.values() if one.position_id]
    of_positions += [(one.position_id, money_of(one)) for one in fills.values() if not one.busted]
    expected: dict[int, Decimal] = {}
    for position_id, amount in of_positions:
        expected[position_id] = expected.get(position_id, ZERO) + amount
    told_profits = {int(key.split(b"/")[1]): state.realized_profit for key, state in desk.positions.items()}
    assert {key: value for key, value in told_profits.items() if value} == {k: v for k, v in expected.items() if v}


# -- the same with a market and a terminal that are processes


def operations_of(terminal: TerminalProcess) -> dict[int, facts.AccountOperation]:
    """Return what the terminal has said last of each operation."""
    return {
        report.body.deal: report.body
        for report in terminal.told(None)
        if isinstance(report.body, facts.AccountOperation)
    }


async def test_a_terminal_tells_every_operation_once_in_all_its_lives(
    terminal: TerminalProcess, market: Market
) -> None:
    process = terminal.start()
    await terminal.ready()
    await eventually(lambda: [body.comment for body in operations_of(terminal).values()] == ["Initial deposit"])
    opened = terminal.order("s-1", (await terminal.ready()).epoch)
    await terminal.submit(opened)
    await eventually(lambda: terminal.kinds(opened.order_id)[-1:] == ["deal"])
    (trade,) = market.ledger("deal")
    position = {"position": trade["position_id"]}
    booked = {market.operate(kind, f"-{5 + place}.25"): kind for place, kind in enumerate(ACCOUNT_OPERATION_NUMBERS)}
    booked |= {market.operate(kind, "-0.7", **position): kind for kind in ("commission", "interest")}
    await eventually(lambda: booked.keys() <= operations_of(terminal).keys())
    process.kill()
    process.wait()
    corrected = next(iter(booked))
    market.operate("charge", "-0.01", deal=corrected)
    terminal.start()
    await eventually(lambda: operations_of(terminal)[corrected].revision == 1)
    said = operations_of(terminal)
    assert {deal: said[deal].type for deal in booked} == booked
    named = {body.position_id for deal, body in said.items() if deal in list(booked)[-2:]}
    assert (named, said[corrected].amount) == ({trade["position_id"]}, Decimal("-0.01"))
    told = [report.body for report in terminal.told(None) if report.kind == "account_operation"]
    assert len(told) == 1 + len(booked) + 1
    ledger = {entry["ticket"]: Decimal(entry["amount"]) for entry in market.ledger("operation")}
    assert {deal: body.amount for deal, body in said.items()} == ledger
    trades = [Decimal(entry[name]) for entry in market.ledger("deal") for name in ("profit", "commission", "swap")]
    changes = [body.amount for body in said.values() if body.type != "credit"]
    assert sum(changes + trades, ZERO) == Decimal(market.health()["accounts"][ACCOUNT]["balance"])
