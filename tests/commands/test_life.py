from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from streamapp.commands.life import Life, asked
from tests.messages.golden import golden


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"order_type": "market"}, "buy 0.10 EURUSD"),
        ({"order_type": "limit", "price": "1.08"}, "buy 0.10 EURUSD limit 1.08 gtc"),
        ({"order_type": "stop", "price": "1.09", "time_in_force": "day"}, "buy 0.10 EURUSD stop 1.09 day"),
        (
            {
                "order_type": "stop_limit",
                "price": "1.09",
                "stop_limit_price": "1.088",
                "time_in_force": "until",
                "expiration": "2026-11-20T12:00:00.000000Z",
            },
            "buy 0.10 EURUSD stop-limit 1.09 limit 1.088 until 2026-11-20T12:00:00",
        ),
    ],
)
def test_an_order_is_shown_with_what_it_asks_of_the_broker(fields: dict[str, Any], line: str) -> None:
    order = {"side": "buy", "volume": "0.10", "symbol": "EURUSD", "time_in_force": "gtc", "expiration": None}
    assert asked(order | {"price": None, "stop_limit_price": None} | fields) == line


def test_an_answer_is_one_line_with_what_became_of_every_copy() -> None:
    console = Console(width=200)
    with console.capture() as shown:
        Life(console).show(golden("answer-1")[0])
    [line] = shown.get().splitlines()
    assert "2 accounts" in line
    assert line.endswith("EURUSD  demo-hedging accepted 0.1, demo-netting refused guard")


def test_texts_of_others_do_nothing_to_a_terminal() -> None:
    console = Console(width=200)
    with console.capture() as shown:
        Life(console).show(golden("refused-1")[0] | {"symbol": "[/red]\x1b[2J", "detail": "a\nb"})
    [line] = shown.get().splitlines()
    assert "[/red]\\x1b[2J" in line
    assert line.endswith("a\\nb")
