"""Volume factor, step and smallest volume of an account: applied once, by the decision, and kept with it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import topics
from streamapp.desk.policy import Policy
from streamapp.domain.parameters import parameters_hash
from streamapp.domain.sizing import Sizing, sized
from streamapp.settings import AccountSettings, GuardSettings, Settings
from tests.kit.desk import ACCOUNT, SIGNAL, DeskWorld
from tests.kit.market import Market

HALF: dict[str, Any] = {"volume_factor": Decimal("0.5"), "volume_step": Decimal("0.01")}
SMALL = st.decimals(min_value=Decimal("0.001"), max_value=50, places=3)


def house(guards: GuardSettings | None = None, role: Any = "both", **own: Any) -> DeskWorld:
    account = AccountSettings(login=1, **own)
    return DeskWorld(Settings(accounts={ACCOUNT: account}, guards=guards or GuardSettings(), role=role))


def decided(world: DeskWorld) -> list[tuple[str, str | None]]:
    return [(one["decision"], one["reason"]) for one in world.archived("signal/1")]


async def test_an_order_has_the_volume_that_the_accounts_factor_and_step_make_and_the_decision_says_how() -> None:
    world = await house(**HALF).start()
    order_id = await world.signal(volume="0.15")
    [decision], [order, *_] = world.archived("signal/1"), world.archived("order/1")
    assert decision["detail"] == "volume 0.07: 0.15 asked, weight 1, volume_factor 0.5, volume_step 0.01"
    assert json.loads(decision["payload"])["volume"] == "0.15"
    assert (order["order_id"], order["volume"], order["remaining_volume"]) == (order_id, "0.07", "0.07")
    [submit] = world.terminals.submits
    assert submit.parameters.volume == Decimal("0.07")
    assert submit.hash == parameters_hash(submit.parameters)


async def test_the_same_signal_is_known_by_what_was_sent_whatever_the_settings_make_of_it() -> None:
    world = await house(**HALF).start()
    order_id = await world.signal(volume="0.15", sequence=1)
    await world.signal(volume="0.150", sequence=2)
    await world.signal(volume="0.14", sequence=3)  # comes to the same 0.07
    assert decided(world) == [("accepted", None), ("duplicate", None), ("conflict", "conflict")]
    world.policy = Policy.of(Settings(accounts={ACCOUNT: AccountSettings(login=1)}))
    await world.restart()
    commits = len(world.store.commits)
    await world.signal(volume="0.15", sequence=1)
    assert len(world.store.commits) == commits
    await world.signal(volume="0.15", sequence=4)
    assert decided(world)[-1] == ("duplicate", None)
    created = world.order_row(order_id).state.created
    assert created is not None
    assert (created.parameters.volume, len(world.terminals.submits)) == (Decimal("0.07"), 1)


@pytest.mark.parametrize(
    ("own", "detail"),
    [
        (HALF, "volume: expected at least 0.01 lots, got 0: 0.01 asked, weight 1, volume_factor 0.5, volume_step 0.01"),
        (
            {"volume_min": Decimal("0.1")},
            "volume: expected at least 0.1 lots, got 0.01: 0.01 asked, weight 1, volume_factor 1, volume_min 0.1",
        ),
    ],
)
async def test_a_volume_that_comes_to_less_than_the_smallest_is_refused_with_all_that_made_it(
    own: dict[str, Any], detail: str
) -> None:
    world = await house(**own).start()
    await world.signal(volume="0.01")
    [refused] = world.published("refused/1")
    assert (refused["reason"], refused["detail"]) == ("guard", detail)
    assert (world.facts(), world.terminals.submits) == ([], [])


async def test_an_exit_that_names_lots_closes_the_accounts_share_of_them_and_one_that_names_none_all() -> None:
    world = await house(**HALF).start()
    market = Market(world)
    await world.signal("s-1", volume="2")
    await market.run()
    await world.signal("x-1", intent="reduce", volume="0.5", side=None, order_type=None)
    await market.run()
    assert list(market.open.values()) == [Decimal("0.75")]
    row = world.signal_row("x-1")
    assert row is not None
    assert row.verdict.detail == "volume 0.25: 0.5 asked, weight 1, volume_factor 0.5, volume_step 0.01"
    await world.signal("x-2", intent="close", volume=None, side=None, order_type=None)
    await market.run()
    assert market.open == {}


async def test_an_exit_that_rounds_to_nothing_is_refused() -> None:
    world = await house(**HALF).start()
    await world.signal("x-1", intent="reduce", volume="0.01", side=None, order_type=None)
    assert decided(world) == [("refused", "guard")]


async def test_the_guard_looks_at_the_volume_that_is_traded() -> None:
    world = await house(GuardSettings(max_volume=Decimal(1)), volume_factor=Decimal("0.5")).start()
    await world.signal("s-1", volume="2")
    await world.signal("s-2", volume="2.2")
    assert decided(world) == [("accepted", None), ("refused", "guard")]
    [refused] = world.published("refused/1")
    assert refused["detail"] == "max_volume: expected 1 lots at most for EURUSD, got 1.1"


async def test_an_order_of_somebody_elses_execution_service_keeps_its_volume() -> None:
    world = await house(role="connector", **HALF).start()
    await world.order(volume="0.15")
    [submit] = world.terminals.submits
    assert submit.parameters.volume == Decimal("0.15")


async def test_an_execution_service_gives_a_foreign_connector_the_volume_that_is_traded() -> None:
    world = await house(role="execution", **HALF).start()
    await world.signal(volume="0.15")
    submitted = [message for subject, message, _ in world.outlet.stored if subject == "orders.submitted.EURUSD"]
    assert [message["volume"] for message in submitted] == ["0.07"]


@settings(max_examples=50, deadline=None)
@given(SMALL, SMALL, st.none() | SMALL, st.none() | SMALL, st.none() | SMALL)
async def test_what_is_traded_is_the_share_rounded_down_or_nothing_and_never_more(
    asked: Decimal, factor: Decimal, step: Decimal | None, smallest: Decimal | None, weight: Decimal | None
) -> None:
    world = await house(volume_factor=factor, volume_step=step, volume_min=smallest).start()
    payload = json.dumps({"signal_id": "s-1", "account": ACCOUNT} | SIGNAL | {"volume": str(asked)}).encode()
    headers = {} if weight is None else {topics.WEIGHT: str(weight).encode()}
    await world.give(payload, topics.SIGNALS_APPROVED, "signal", headers=headers)
    await world.settled()
    wanted = sized(asked, Sizing(factor, step, smallest), weight or Decimal(1))
    traded = [submit.parameters.volume for submit in world.terminals.submits]
    assert traded == ([] if wanted.refusal else [wanted.volume])
    assert sum(traded) <= asked * factor * (weight or 1)
    told = [message["copy"]["volume"] for message in world.archived("copy/1")]
    assert [Decimal(volume) for volume in told if volume] == ([] if weight is None else traded)
    assert len(told) == (weight is not None)
