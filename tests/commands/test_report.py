"""The command on a real ClickHouse with rows that are known."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from streamapp.cli import app
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.rows import Refusal
from streamapp.clickhouse.writer import Writer
from streamapp.domain.facts import make_fact
from streamapp.errors import StreamappError
from streamapp.local.ports import free_port
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.settings import Settings, load_settings
from tests.clickhouse import samples
from tests.report.examples import fill, market, order

DAY = f"{samples.AT:%Y-%m-%d}"
NEXT = samples.AT + timedelta(days=1)


def known_rows() -> Sequence[Message]:
    """Two orders of a day, one of which was filled and closed by its stop, and an order of the next day."""
    place: dict[str, Any] = {"position_id": 5, "order_id": "o-1"}
    cost = {"slippage": samples.SLIPPAGE, "filled_volume": Decimal(2)}
    closed = {"side": None, "volume": Decimal(0), "average_price": None, "realized_profit": Decimal("-46.70")}
    sendings = [market("1", attempt=1), market(attempt=2)]
    return [
        order("o-1", **cost),
        *(FactMessage.of(make_fact("demo-hedging", "o-1", one, at=samples.AT)) for one in sendings),
        fill("102", "2", 11, **place),
        fill("99", "2", 12, side="sell", entry="out", reason="sl", profit=Decimal("-40.70"), order_id=None),
        fill("1", "7", 13, busted=True),
        samples.position(2, **closed),
        order("o-2", status="rejected", detail="NO_MONEY", strategy="carry"),
        samples.decision(1, decision="refused", reason="\x1b[31mstale", order_id=None, at=samples.AT),
        order("o-3", account="other", signal_at=NEXT, created_at=NEXT),
    ]


@pytest.fixture(scope="module")
def environment(clickhouse_url: str) -> dict[str, str]:
    """The settings of a database with the known rows."""
    given = {"STREAMAPP_CLICKHOUSE__URL": clickhouse_url, "STREAMAPP_CLICKHOUSE__DATABASE": f"test_{uuid.uuid4().hex}"}

    async def bury(refusal: Refusal) -> None:
        raise AssertionError(refusal)

    async def fill_it() -> None:
        clickhouse = {"url": clickhouse_url, "database": given["STREAMAPP_CLICKHOUSE__DATABASE"], "timeout_s": 60}
        settings = Settings.model_validate({"clickhouse": clickhouse})
        await migrate(settings)
        client = ClickHouse.of(settings)
        records = [samples.record(message, offset=offset) for offset, message in enumerate(known_rows())]
        await Writer(client, "both", bury).write(records)
        await client.close()

    asyncio.run(fill_it())
    return given


def report(environment: dict[str, str], *arguments: str) -> Result:
    load_settings.cache_clear()
    try:
        return CliRunner().invoke(app, ["report", *arguments], env=environment)
    finally:
        load_settings.cache_clear()


def figures(environment: dict[str, str], *arguments: str) -> Any:
    done = report(environment, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_days_report_is_what_its_rows_come_to(environment: dict[str, str]) -> None:
    shown = figures(environment, "--from", DAY, "--to", DAY)
    [profit] = shown["profits"]
    # -40.70 and twice -3 of commission.
    assert (profit["strategy"], Decimal(profit["realized_profit"]), profit["fills"]) == (
        "breakout",
        Decimal("-46.70"),
        2,
    )
    assert (profit["wins"], profit["losses"]) == (0, 1)
    # The second sending counts, 101: 20 of delay, 20 of execution, 3 of fees; the last price, 99, is the stop's.
    costs = {row["order_id"]: row for row in shown["shortfall_by_order"]}
    first = [Decimal(costs["o-1"][part]) for part in ("delay", "execution", "fees", "opportunity", "total")]
    assert first == [20, 20, 3, 0, 43]
    assert Decimal(costs["o-2"]["opportunity"]) == -20
    assert {row["what"]: (row["reason"], row["count"]) for row in shown["reasons"]} == {
        "rejected": ("NO_MONEY", 1),
        "signal refused": ("\x1b[31mstale", 1),
    }
    assert [(row["strategy"], Decimal(row["fill_ratio"])) for row in shown["ratios"]] == [
        ("breakout", Decimal(1)),
        ("carry", Decimal(0)),
    ]
    assert [(row["step"], row["n"]) for row in shown["latency"]] == [
        ("signal to created", 2),
        ("created to order_send", 2),
        ("order_send to fill", 1),
        ("signal to fill", 1),
    ]


def test_an_account_and_a_strategy_may_be_chosen_and_several_days(environment: dict[str, str]) -> None:
    days = ("--from", DAY, "--to", f"{NEXT:%Y-%m-%d}")
    assert {row["strategy"] for row in figures(environment, *days)["ratios"]} == {"breakout", "carry"}
    assert [row["orders"] for row in figures(environment, *days, "--account", "other")["ratios"]] == [1]
    carry = figures(environment, *days, "--strategy", "carry")
    assert ([row["strategy"] for row in carry["ratios"]], carry["profits"]) == (["carry"], [])


def test_a_connector_reports_profit_alone(environment: dict[str, str]) -> None:
    shown = figures(environment | {"STREAMAPP_ROLE": "connector"}, "--from", DAY, "--to", DAY)
    assert [row["strategy"] for row in shown["profits"]] == ["breakout"]
    assert (shown["ratios"], shown["reasons"], shown["shortfall_by_order"]) == ([], [], [])


def test_the_tables_are_printed_whole_into_a_pipe(environment: dict[str, str]) -> None:
    printed = report(environment, "--from", DAY, "--to", DAY).output
    for words in ("Trading of 2026-11-20 (UTC)", "Profit and loss by strategy", "-46.70", "o-1", "NO_MONEY", "p99"):
        assert words in printed
    assert "\x1b" not in printed


def test_the_page_is_one_file(environment: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert report(environment, "--from", DAY, "--to", DAY, "--html", str(target)).exit_code == 0
    root = ET.fromstring(target.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>\n"))
    assert "-46.70" in {cell.text for cell in root.iter("td")}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--from", "2020-01-01", "--to", "2020-01-02"), r"expected orders.*2020-01-01 to 2020-01-02.*got none"),
        (("--from", DAY, "--to", DAY, "--strategy", "x"), r"strategy x; got none.*other days with --from and --to"),
        (("--from", DAY, "--to", "2020-01-02"), r"--from, --to: expected a first day that is not after the last"),
        (("--from", DAY, "--to", DAY, "--html", "/no/such/folder/x.html"), r"--html: expected a file that can be"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence_that_says_what_to_do(
    environment: dict[str, str], arguments: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(StreamappError, match=expected):
        raise report(environment, *arguments).exception or AssertionError


def test_a_day_that_is_none_is_refused_before_anything_is_asked(environment: dict[str, str]) -> None:
    assert report(environment, "--from", "yesterday").exit_code == 2


@pytest.mark.parametrize("missing", ["server", "database"])
def test_a_clickhouse_that_is_away_or_empty_is_a_sentence_that_says_what_to_do(
    environment: dict[str, str], missing: str
) -> None:
    away = {"STREAMAPP_CLICKHOUSE__URL": f"http://127.0.0.1:{free_port()}", "STREAMAPP_CLICKHOUSE__TIMEOUT_S": "2"}
    given = environment | (away if missing == "server" else {"STREAMAPP_CLICKHOUSE__DATABASE": "nobody"})
    with pytest.raises(StreamappError, match=r"Expected ClickHouse with our tables at http.*streamapp init"):
        raise report(given).exception or AssertionError
