from __future__ import annotations

from streamapp.mt5 import constants as mt5
from streamapp.simulator.prices.bars import Bar, Gathered, grow

FIRST_S = 1_700_000_000 // 3600 * 3600 + 120


def minute(number: int, price: float) -> list[float]:
    return [(FIRST_S + number * 60) * 1000, price, price + 2, price - 1, price + 1, 3, 7]


def as_bar(live: list[float]) -> Bar:
    return (int(live[0]) // 1000, live[1], live[2], live[3], live[4], int(live[5]), int(live[6]), 0)


def test_bars_that_are_kept_are_those_that_are_gathered_anew() -> None:
    """Also while the present minute changes, and asked for at any time."""
    past = [as_bar(minute(number, 100.0 + number)) for number in range(-130, 0)]
    for timeframe in (mt5.TIMEFRAME_M1, mt5.TIMEFRAME_M5, mt5.TIMEFRAME_H1):
        kept, live = Gathered(past, timeframe, 0), []
        for number in range(70):
            live.append(minute(number, 50.0 + number % 7))
            for high in (60.0, 80.0):
                live[-1][2] = high
                if number % 3 == 0:
                    continue
                anew: list[Bar] = []
                for bar in [*past, *map(as_bar, live)]:
                    grow(anew, bar, timeframe)
                assert kept.bars(live) == anew
