from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.facts import Fact, Filled
from streamapp.domain.fold import deal_of
from streamapp.domain.orders import Deal, Owner, replaced
from streamapp.domain.positions import PositionState, fold_deals, symbol_position_id
from tests.kit.examples import at, busted, corrected, deal, filled, operation


def booked(number: int, volume: str, price: str, side: str = "buy", **more: Any) -> Deal:
    return Deal(filled=deal(number, volume, price, seconds=number, side=side, **more), revision=0)


def test_adding_averages_by_volume() -> None:
    # (1 * 1.10 + 3 * 1.20) / 4 = 1.175
    state = fold_deals([booked(1, "1", "1.10"), booked(2, "3", "1.20")])
    assert (state.side, state.volume, state.average_price) == ("buy", Decimal(4), Decimal("1.175"))
    assert state.at == at(2)


def test_reducing_keeps_the_average_and_books_what_the_broker_says() -> None:
    opened = booked(1, "1", "1.10", commission=Decimal("-3.5"))
    closed = booked(2, "0.4", "1.20", "sell", entry="out", profit=Decimal(4000), swap=Decimal(-2), fee=Decimal("-0.1"))
    state = fold_deals([opened, closed])
    assert (state.side, state.volume, state.average_price) == ("buy", Decimal("0.6"), Decimal("1.10"))
    assert state.realized_profit == Decimal("3994.4")


def test_reversing_opens_at_the_price_of_the_deal() -> None:
    state = fold_deals([booked(1, "1", "1.10"), booked(2, "3", "1.20", "sell", entry="inout")])
    assert (state.side, state.volume, state.average_price) == ("sell", Decimal(2), Decimal("1.20"))


def test_closing_by_an_opposite_position_leaves_it_flat() -> None:
    state = fold_deals([booked(1, "1", "1.10", "sell"), booked(2, "1", "1.20", "buy", entry="out_by")])
    assert (state.side, state.volume, state.average_price) == (None, Decimal(0), None)


def test_a_deal_that_only_closes_opens_nothing() -> None:
    # It was opened before our time: one lot is closed, and nobody is short.
    closed = booked(2, "1", "1.20", "sell", entry="out", profit=Decimal(50))
    assert (fold_deals([closed]).net, fold_deals([closed]).realized_profit) == (Decimal(0), Decimal(50))
    # A split made 0.4 of 0.1: half of it is closed, then the rest.
    opened, half, rest = booked(3, "0.1", "1.1"), *(booked(n, "0.2", "0.3", "sell", entry="out") for n in (4, 5))
    assert [fold_deals(deals).net for deals in ([opened, half], [opened, half, rest])] == [Decimal(0), Decimal(0)]
    assert fold_deals([opened, half, rest]).beyond == Decimal("-0.3")


def test_what_opened_a_position_may_be_told_after_what_closed_it() -> None:
    deals = [booked(1, "1", "1.10"), booked(2, "0.4", "1.20", "sell", entry="out")]
    assert [fold_deals(deals[1:]).net, fold_deals(deals).net] == [Decimal(0), Decimal("0.6")]
    assert fold_deals([booked(3, "1", "1.10")], fold_deals(deals[1:])).net == Decimal("0.6")


def test_a_fold_that_was_kept_before_it_knew_what_opened_it_goes_on_from_what_is_open() -> None:
    kept = PositionState(symbol="EURUSD", net=Decimal(1), average_price=Decimal("1.10"))
    assert fold_deals([booked(2, "0.4", "1.20", "sell", entry="out")], kept).net == Decimal("0.6")
    short = PositionState(symbol="EURUSD", net=Decimal(-1), average_price=Decimal("1.10"))
    assert fold_deals([booked(2, "0.4", "1.20", "buy", entry="out_by")], short).net == Decimal("-0.6")


def test_adding_to_a_short_position_at_the_same_price_keeps_its_spelling() -> None:
    state = fold_deals([booked(1, "1", "1.10", "sell"), booked(2, "1", "1.10", "sell")])
    assert (str(state.net), str(state.average_price)) == ("-2", "1.10")


def test_a_busted_deal_counts_nothing_and_a_corrected_one_as_corrected() -> None:
    first, second = booked(1, "1", "1.10"), booked(2, "1", "1.20")
    corrected = second.merged(Deal(filled=deal(2, "0.5", "1.30", seconds=2), revision=1))
    state = fold_deals([first.merged(Deal(busted=1)), corrected])
    assert (state.volume, state.average_price) == (Decimal("0.5"), Decimal("1.30"))
    assert fold_deals([Deal(busted=1)]) == PositionState()
    flat = fold_deals([first.merged(Deal(busted=1))])
    assert (flat.volume, flat.symbol, flat.at) == (Decimal(0), "EURUSD", at(1))


def test_what_is_charged_to_a_position_is_part_of_its_profit_and_of_nothing_else() -> None:
    deals = [booked(1, "1", "1.10", currency="USD"), booked(9, "1", "1.20", "sell", profit=Decimal(100))]
    charges = [operation(4, "-3.5", at=at(4)), operation(10, "-0.25", at=at(10))]
    charged, plain = fold_deals(deals, operations=charges), fold_deals(deals)
    assert (charged.realized_profit, charged.at) == (Decimal("96.25"), at(10))
    assert charged.model_copy(update={"realized_profit": Decimal(100), "at": plain.at}) == plain


def test_of_a_position_that_was_charged_and_never_seen_to_trade_nobody_knows_what_is_open() -> None:
    state = fold_deals([], operations=[operation(4)])
    assert (state.realized_profit, state.currency, state.at) == (Decimal("-3.5"), "USD", None)
    assert fold_deals([booked(5, "1", "1.10")], state).realized_profit == Decimal("-3.5")


def test_a_currency_once_known_is_kept() -> None:
    state = fold_deals([booked(1, "1", "1.10", currency="USD"), booked(2, "1", "1.10")])
    assert state.currency == "USD"


def _deals_of(entries: list[str]) -> st.SearchStrategy[list[Deal]]:
    volumes, prices = st.decimals("0.01", "5", places=2), st.decimals("1", "2", places=5)
    rows = st.tuples(volumes, prices, st.sampled_from(["buy", "sell"]), st.sampled_from(entries))
    return st.lists(rows, max_size=12).map(
        lambda rows: [
            booked(i // 2 + 1 + 100 * i, str(v), str(p), s, entry=entry) for i, (v, p, s, entry) in enumerate(rows)
        ]
    )


_deals = _deals_of(["in", "inout"])
_any_deals = _deals_of(["in", "out", "inout", "out_by"])


@given(_any_deals, st.randoms())
def test_a_position_is_the_same_whatever_order_its_deals_came_in(deals: list[Deal], chance: Any) -> None:
    shuffled = list(deals)
    chance.shuffle(shuffled)
    assert fold_deals(shuffled) == fold_deals(deals)


@given(_deals)
def test_a_position_is_the_signed_sum_of_its_fills(deals: list[Deal]) -> None:
    fills = [known.filled for known in deals if known.filled is not None]
    total = sum((f.volume if f.side == "buy" else -f.volume for f in fills), Decimal(0))
    state = fold_deals(deals)
    assert state.net == total
    assert (state.average_price is None) == (total == 0) == (state.side is None)
    if fills and state.average_price is not None:
        assert min(f.price for f in fills) <= state.average_price <= max(f.price for f in fills)


@given(_any_deals, st.randoms())
def test_deals_add_up_to_the_same_at_any_times_and_open_only_what_one_of_them_may_open(
    deals: list[Deal], chance: Any
) -> None:
    fills = [known.filled for known in deals if known.filled is not None]
    total = sum((f.volume if f.side == "buy" else -f.volume for f in fills), Decimal(0))
    opened = {f.side for f in fills if f.entry in {"in", "inout"}}
    may_be_open = total == 0 or ("buy" if total > 0 else "sell") in opened
    net, beyond = (total, Decimal(0)) if may_be_open else (Decimal(0), total)
    chance.shuffle(fills)
    moved = [Deal(filled=one.model_copy(update={"time": at(n)}), revision=0) for n, one in enumerate(fills)]
    for state in (fold_deals(deals), fold_deals(moved)):
        assert (state.net, state.beyond) == (net, beyond)


@given(_any_deals, st.integers(0, 12))
def test_later_deals_may_be_added_to_the_fold_of_earlier_ones(deals: list[Deal], cut: int) -> None:
    assert fold_deals(deals[cut:], fold_deals(deals[:cut])) == fold_deals(deals)


_contents = st.fixed_dictionaries(
    {
        "volume": st.decimals("0.01", "5", places=2).map(str),
        "price": st.decimals("1", "2", places=5).map(str),
        "side": st.sampled_from(["buy", "sell"]),
        "seconds": st.integers(0, 4),
        "profit": st.decimals(-100, 100, places=2),
        "commission": st.decimals(-9, 0, places=2),
    }
)
_lives = st.dictionaries(
    st.integers(1, 6),
    st.tuples(st.dictionaries(st.integers(0, 3), _contents, max_size=3), st.none() | st.integers(0, 3)),
)
"""Of each deal ticket: its content at some revisions, and the revision that took it back."""


def _facts_of(number: int, contents: dict[int, dict[str, Any]], bust: int | None) -> Iterator[Fact]:
    for revision, content in contents.items():
        yield corrected(number, revision, **content) if revision else filled(number, **content)
    if bust is not None:
        yield busted(number, bust)


def _standing(number: int, contents: dict[int, dict[str, Any]], bust: int | None) -> Iterator[Filled]:
    """Give the deal as the broker's books show it in the end, if they do."""
    if contents and (bust is None or bust < max(contents)):
        yield deal(number, **contents[max(contents)])


def _booked_by_hand(deals: list[Filled]) -> tuple[Fraction, Fraction | None, Fraction]:
    """Return net lots, average price of what is open, and money: by what is open and what it cost, in fractions."""
    net, cost, money = Fraction(0), Fraction(0), Fraction(0)
    for one in sorted(deals, key=lambda one: (one.time, one.deal)):
        signed = Fraction(one.volume) * (1 if one.side == "buy" else -1)
        closed = min(abs(net), abs(signed)) if net * signed < 0 else Fraction(0)
        if net:
            cost -= cost * closed / abs(net)
        cost += (abs(signed) - closed) * Fraction(one.price)
        net += signed
        money += Fraction(one.profit) + Fraction(one.commission)
    return net, cost / abs(net) if net else None, money


@given(_lives, st.randoms())
def test_a_position_is_what_the_brokers_books_show_in_the_end_whatever_came_when(lives: Any, chance: Any) -> None:
    facts = [fact for number, life in lives.items() for fact in _facts_of(number, *life)]
    arrived = facts + [fact for fact in facts if chance.random() < 0.3]
    chance.shuffle(arrived)
    known: dict[int, Deal] = {}
    for number, said in map(deal_of, arrived):
        known[number] = known.get(number, Deal()).merged(said)
    state = fold_deals(known.values())
    standing = [one for number, life in lives.items() for one in _standing(number, *life)]
    net, average, money = _booked_by_hand(standing)
    assert (Fraction(state.net), Fraction(state.realized_profit)) == (net, money)
    assert (state.average_price is None) == (average is None)
    if state.average_price is not None and average is not None:
        assert abs(Fraction(state.average_price) - average) <= len(standing) * Fraction(1, 10**10)
    if standing:
        assert state.at == max(one.time for one in standing)


def test_a_foreign_fill_without_a_position_gets_one_for_its_symbol() -> None:
    one = symbol_position_id("demo", "EURUSD")
    assert one == symbol_position_id("demo", "EURUSD")
    assert len({one, symbol_position_id("demo", "GBPUSD"), symbol_position_id("other", "EURUSD")}) == 3
    assert 2**51 <= one < 2**52


OURS = Owner("o-1", "s-1", "breakout")


def test_a_position_is_whose_deal_opened_it_also_when_others_closed_it() -> None:
    opened = replaced(booked(1, "1", "1.10"), owner=OURS)
    stopped = booked(2, "1", "1.05", "sell", reason="sl")
    state = fold_deals([opened, stopped])
    assert (state.opened_by, state.opened_at, state.shares, state.net) == (OURS, at(1), {}, Decimal(0))
    again = fold_deals([booked(3, "1", "1.10")], state)
    assert (again.opened_by, again.opened_at, again.shares) == (None, at(3), {})


def test_each_strategy_has_its_share_of_one_net_position() -> None:
    # +1 by breakout, +2 without a strategy, -0.5 by breakout, -2 by hand: 0.5 are open.
    other = Owner("o-2", "s-2")
    state = fold_deals(
        [
            replaced(booked(1, "1", "1.10"), owner=OURS),
            replaced(booked(2, "2", "1.10"), owner=other),
            replaced(booked(3, "0.5", "1.10", "sell"), owner=OURS),
        ]
    )
    assert state.shares == {"breakout": Decimal("0.5"), "": Decimal(2)}
    assert [state.share_of([name]) for name in ("breakout", "", "x")] == [Decimal("0.5"), Decimal(2), Decimal(0)]
    assert state.share_of(None) == Decimal("2.5")
    less = fold_deals([booked(4, "2.2", "1.10", "sell")], state)
    # Nobody's share is more than what is open.
    assert {less.net, less.share_of([""]), less.share_of(["breakout"])} == {Decimal("0.3")}


def test_a_reversal_leaves_what_is_open_to_who_reversed() -> None:
    state = fold_deals(
        [
            replaced(booked(1, "1", "1.10"), owner=OURS),
            replaced(booked(2, "3", "1.2", "sell"), owner=Owner("o-2", "s-2")),
        ]
    )
    assert (state.shares, state.opened_by) == ({"": Decimal(-2)}, Owner("o-2", "s-2"))
    assert (state.share_of([""]), state.share_of(["breakout"])) == (Decimal(2), Decimal(0))


def test_a_share_on_the_other_side_of_what_is_open_is_none() -> None:
    state = fold_deals([replaced(booked(1, "1", "1.10"), owner=OURS), booked(2, "3", "1.2", "sell")])
    more = fold_deals([replaced(booked(3, "1", "1.10"), owner=OURS)], state)
    assert (more.net, more.share_of(["breakout"])) == (Decimal(-1), Decimal(0))
