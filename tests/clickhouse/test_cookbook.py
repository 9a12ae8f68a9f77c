"""Every query of docs/cookbook.md, on rows of today that each of them has something to say of."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.writer import Writer
from streamapp.docs.__main__ import FOLDER
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.history import AccountHistoryMessage
from tests.clickhouse import samples

QUERIES = re.findall(r"```sql\n(.*?);\n```", (FOLDER / "cookbook.md").read_text(encoding="utf-8"), re.DOTALL)
PARAMETERS = {"signal": "s-o-1", "order": "o-1"}


async def test_every_query_of_the_cookbook_has_an_answer(clickhouse: ClickHouse) -> None:
    now = datetime.now(UTC)
    lived: dict[str, Any] = {"signal_at": now, "created_at": now, "submitted_at": now, "updated_at": now}
    money = {"account": "demo-hedging", "balance": Decimal(100), "equity": Decimal(100)}
    found = {"account": "demo-hedging", "kind": "volume", "symbol": "EURUSD", "first_seen": now, "last_seen": now}
    messages = (
        samples.decision(at=now),
        samples.decision(2, at=now, decision="refused", reason="stale", detail="valid_until: ...", order_id=None),
        samples.order(status="filled", detail="", order_type="market", **lived),
        samples.order("o-2", detail="in_doubt", **lived),
        samples.fill(at=now + timedelta(milliseconds=20)),
        samples.position(at=now),
        samples.position(2, position_id=6, side=None, volume=Decimal(0), average_price=None, at=now),
        samples.operation(at=now),
        AccountHistoryMessage(at=now, **money),
        AccountHistoryMessage(at=now + timedelta(seconds=1), **money | {"equity": Decimal(90)}),
        BreakMessage(break_id="b-1", at=now, ours="0.1", theirs="0.2", **found),
        samples.fact(),
    )

    async def bury(refusal: Any) -> None:
        raise AssertionError(refusal)

    records = [samples.record(message, offset=offset) for offset, message in enumerate(messages)]
    await Writer(clickhouse, "both", bury).write([*records, samples.record(samples.log_entry())])
    assert len(QUERIES) > 15
    for query in QUERIES:
        assert await clickhouse.query(query, PARAMETERS), query
