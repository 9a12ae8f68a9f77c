"""What others do at an account: a person with a phone, another program, the broker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import MarketProcess, send

MAGICS: Iterator[int] = count(6_000_000)


def foreign(market: MarketProcess, action: str, **params: Any) -> Any:
    return market.http(
        "POST",
        "/faults",
        {"kind": "foreign_activity", "account": "demo-hedging", "params": {"action": action, **params}},
    )


def deals_of(position: int) -> Any:
    return mt5.history_deals_get(position=position)


def test_a_busted_opening_takes_its_position_with_it(hedging: MarketProcess) -> None:
    opened = send(magic=next(MAGICS))
    balance = mt5.account_info().balance
    foreign(hedging, "bust", deal=opened.deal)
    assert mt5.positions_get(ticket=opened.order) == ()
    (deal,) = deals_of(opened.order)
    assert (deal.ticket, deal.type, deal.profit, deal.volume) == (opened.deal, mt5.DEAL_TYPE_BUY_CANCELED, 0.0, 0.1)
    assert mt5.account_info().balance == balance
    assert [row["kind"] for row in hedging.ledger() if row["ticket"] == opened.deal] == ["deal", "bust"]
    assert "expected" in foreign(hedging, "bust", deal=opened.deal)["error"]
    assert "expected params.deal" in foreign(hedging, "bust")["error"]


def test_a_busted_closing_opens_its_position_again(hedging: MarketProcess) -> None:
    opened = send(magic=next(MAGICS), sl=1.05)
    before = mt5.positions_get(ticket=opened.order)[0]
    hedging.pin("EURUSD", "1.20000", "1.20010")
    balance = mt5.account_info().balance
    closed = send(type=1, position=opened.order)
    foreign(hedging, "bust", deal=closed.deal)
    (after,) = mt5.positions_get(ticket=opened.order)
    same = ("ticket", "identifier", "volume", "price_open", "magic", "type", "time_msc", "sl")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert deals_of(opened.order)[-1].type == mt5.DEAL_TYPE_SELL_CANCELED
    commission = deals_of(opened.order)[-1].commission
    assert mt5.account_info().balance == pytest.approx(balance + commission)
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_DONE


def test_a_corrected_deal_keeps_its_ticket(hedging: MarketProcess) -> None:
    opened = send(magic=next(MAGICS))
    foreign(hedging, "correct", deal=opened.deal, price="1.10100")
    assert deals_of(opened.order)[0].price == mt5.positions_get(ticket=opened.order)[0].price_open == 1.101
    assert deals_of(opened.order)[0].ticket == opened.deal
    balance = mt5.account_info().balance
    closed = send(type=1, position=opened.order)
    expected = mt5.account_info().balance
    foreign(hedging, "correct", deal=closed.deal, price="1.10050")
    assert mt5.account_info().balance == pytest.approx(expected + 5.0)
    assert expected < balance


def test_a_deal_is_called_otherwise_and_nothing_of_the_trade_changes(hedging: MarketProcess) -> None:
    opened, lines = send(magic=next(MAGICS), comment="ours"), hedging.ledger()
    (before,), account = deals_of(opened.order), mt5.account_info()
    foreign(hedging, "relabel", deal=opened.deal, magic=7)
    foreign(hedging, "relabel", deal=opened.deal, comment="[partner]")
    (after,) = deals_of(opened.order)
    assert after._asdict() == before._asdict() | {"magic": 7, "comment": "[partner]"}
    assert (mt5.account_info(), hedging.ledger()) == (account, lines)
    assert "expected params.magic or params.comment" in foreign(hedging, "relabel", deal=opened.deal)["error"]


@pytest.mark.parametrize(("action", "state"), [("cancel", 2), ("reject", 5), ("expire", 6)])
def test_a_broker_ends_a_pending_order(hedging: MarketProcess, action: str, state: int) -> None:
    placed = send(action=mt5.TRADE_ACTION_PENDING, type=2, price=1.05)
    foreign(hedging, action, order=placed.order)
    assert mt5.orders_get(ticket=placed.order) == ()
    assert mt5.history_orders_get(ticket=placed.order)[0].state == state


def test_somebody_closes_a_part(hedging: MarketProcess) -> None:
    opened = send()
    foreign(hedging, "close", position=opened.order, volume="0.04")
    assert mt5.positions_get(ticket=opened.order)[0].volume == 0.06


@pytest.mark.parametrize(("action", "left"), [("close", 0), ("modify", 1), ("duplicate", 2)])
def test_somebody_else_is_active_after_an_order(hedging: MarketProcess, action: str, left: int) -> None:
    hedging.fault("foreign_activity", nth=1, params={"action": action, "sl": 1.05, "tp": 1.15})
    magic = next(MAGICS)
    send(magic=magic)
    found = [p for p in mt5.positions_get() if p.magic == magic]
    assert len(found) == left
    if action == "modify":
        assert (found[0].sl, found[0].tp) == (1.05, 1.15)
    if action == "close":
        closing = [row for row in hedging.ledger(kind="order") if row["magic"] == magic][-1]
        assert closing["reason"] == "mobile"


def test_a_deal_can_be_busted_right_after_its_order(hedging: MarketProcess) -> None:
    hedging.fault("foreign_activity", nth=1, params={"action": "bust"})
    result = send(magic=next(MAGICS))
    assert result.retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.positions_get(ticket=result.order) == ()
    assert [deal.type for deal in deals_of(result.order)] == [mt5.DEAL_TYPE_BUY_CANCELED]


def test_a_turned_position_can_not_be_taken_back(netting: MarketProcess) -> None:
    netting.fault("foreign_activity", account="demo-netting", nth=2, params={"action": "bust"})
    send(magic=next(MAGICS))
    turned = send(type=1, volume=0.2, magic=next(MAGICS))
    assert turned.retcode == mt5.TRADE_RETCODE_DONE
    assert netting.http("GET", "/health")["status"] == "ok"
    assert "expected params.price" in foreign(netting, "correct", deal=turned.deal)["error"]


def test_a_split_changes_volume_and_price_without_a_deal(hedging: MarketProcess) -> None:
    hedging.pin("AAPL.EX", "200.00", "200.00")
    opened = send(symbol="AAPL.EX", volume=10.0, sl=180.0, magic=next(MAGICS))
    account, deals, lines = mt5.account_info(), deals_of(opened.order), hedging.ledger()
    hedging.pin("AAPL.EX", "190.00", "190.00")
    hedging.pin("AAPL.EX", "200.00", "200.00")
    assert "expected params.ratio" in foreign(hedging, "split", position=opened.order)["error"]
    foreign(hedging, "split", position=opened.order, ratio="4")
    hedging.pin("AAPL.EX", "50.00", "50.00")
    (position,) = mt5.positions_get(ticket=opened.order)
    assert (position.volume, position.price_open, position.sl, position.profit) == (40.0, 50.0, 45.0, 0.0)
    assert (mt5.account_info().margin, mt5.account_info().balance) == (account.margin, account.balance)
    assert (deals_of(opened.order), hedging.ledger()) == (deals, lines)
    closed = send(symbol="AAPL.EX", volume=40.0, type=1, position=opened.order)
    assert (closed.retcode, closed.volume) == (mt5.TRADE_RETCODE_DONE, 40.0)
    assert mt5.positions_get(ticket=opened.order) == ()
