"""docs/webhook.md shows what is really read."""

from __future__ import annotations

import json
import re
from pathlib import Path

from streamapp.docs.__main__ import FOLDER
from streamapp.messages.source import load_sources
from streamapp.settings import ExecutionSettings

PAGE = (FOLDER / "webhook.md").read_text(encoding="utf-8")
FILLED_IN = {
    "timenow": "2026-11-27T10:00:00Z",
    "ticker": "EURUSD",
    "strategy.order.action": "sell",
    "strategy.market_position": "flat",
    "strategy.order.contracts": "0.1",
    "strategy.order.price": "1.09512",
    "close": "1.09512",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_alerts_of_the_page_are_signals_once_tradingview_has_filled_them_in() -> None:
    source = load_sources(None, ExecutionSettings())["tradingview"]
    read = []
    for text in blocks("json"):
        alert = json.loads(re.sub(r"{{(.*?)}}", lambda found: FILLED_IN.get(found[1], "text"), text))
        if "schema" not in alert:
            fields = source.signal(alert, "chart-1").fields
            read.append((fields["intent"], fields.get("side"), fields.get("volume")))
    assert read == [("close", "sell", "0.1"), ("open", "buy", "0.10"), ("close", None, None)]


def test_the_mapping_file_of_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(blocks("toml")[0], encoding="utf-8")
    source = load_sources(tmp_path, ExecutionSettings())["acme"]
    body = {"uuid": "u-1", "auth": {"key": "k"}, "instrument": "EUR/USD", "event": "entry", "direction": "Long"}
    fields = source.signal({**body, "order": {"lots": "0.2"}, "unit": "LOTS"}, "acme").fields
    assert source.secret_in(body) == "k"
    assert (fields["symbol"], fields["intent"], fields["side"]) == ("EURUSD", "open", "buy")
    assert source.signal({**body, "event": "Exit"}, "acme").fields["intent"] == "close"
