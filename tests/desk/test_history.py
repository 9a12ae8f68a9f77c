"""What the archive keeps of an account and its positions: once a minute and at each change, and nothing for NATS."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp.desk import history
from streamapp.messages.account import SnapshotPosition
from tests.desk.test_reconciliation import House, position
from tests.kit.desk import DeskWorld


@pytest.fixture
async def house() -> House:
    return await House().start()


def accounts(house: House) -> list[tuple[str | None, int, str]]:
    return [
        (one["equity"], one["positions"], one["floating_profit"]) for one in house.world.archived("account_history/1")
    ]


def positions(house: House) -> list[tuple[int, str | None, str, str | None]]:
    kept = house.world.archived("position_history/1")
    return [(one["position_id"], one["side"], one["volume"], one["stop_loss"]) for one in kept]


async def test_money_and_positions_are_kept_once_a_minute_while_only_prices_move(house: House) -> None:
    for seconds in range(0, 62, 2):
        await house.shows(position(profit=Decimal(seconds)), equity=Decimal(seconds))
    assert accounts(house) == [("0", 1, "0"), ("60", 1, "60")]
    assert positions(house) == [(7, "buy", "0.1", None)] * 2
    assert not any("history" in subject for subject in house.world.subjects)


async def test_each_change_of_a_position_is_kept_at_once_and_of_the_others_nothing(house: House) -> None:
    shown: list[list[SnapshotPosition]] = [
        [position(), position("0.5", 8)],
        [position(), position("0.4", 8)],
        [position(stop_loss=Decimal("1.05")), position("0.4", 8)],
        [position(stop_loss=Decimal("1.05"))],
    ]
    for rows in shown:
        await house.shows(*rows)
    assert positions(house) == [
        (7, "buy", "0.1", None),
        (8, "buy", "0.5", None),
        (8, "buy", "0.4", None),
        (7, "buy", "0.1", "1.05"),
        (8, None, "0", None),
    ]
    assert [count for _, count, _ in accounts(house)] == [2, 2, 2, 1]


async def test_what_is_not_known_is_not_kept_as_nothing(house: House) -> None:
    await house.shows(position())
    await house.shows(connection="disconnected")
    assert len(positions(house)) == 1


async def test_a_commit_keeps_no_more_positions_than_it_has_room_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST", 2)
    await house.shows(*(position(number=number) for number in (9, 8, 7)))
    assert [number for number, *_ in positions(house)] == [7, 8]
    assert [count for _, count, _ in accounts(house)] == [3]


async def test_a_connector_keeps_none_of_it(house: House) -> None:
    settings = house.world.settings.model_copy(update={"role": "connector"})
    other: Any = House(settings=settings)
    assert isinstance(other.world, DeskWorld)
    await other.start()
    await other.shows(position())
    assert accounts(other) == []
