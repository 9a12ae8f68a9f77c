from datetime import timedelta

from streamapp.domain.facts import Fact
from streamapp.domain.orders import OrderState
from streamapp.domain.steps import STEPS, steps_between, steps_ended
from tests.kit.examples import accepted, at, created, filled, order_of, rejected, returned, started


def ended(fact: Fact, order: OrderState) -> dict[str, float]:
    """Return the seconds of the steps that end with a fact, which is durable ten seconds after the order's start."""
    return {step: took.total_seconds() for step, took in steps_ended(fact, order, at(10))}


def test_each_fact_ends_the_steps_that_lead_to_it() -> None:
    facts = (created(seconds=0.5), started(seconds=2), returned(seconds=3), accepted(), filled(seconds=4))
    order = order_of(*facts)
    said = [ended(fact, order) for fact in facts]
    assert said == [
        {"signal to created": 0.5, "created to committed": 9.5},
        {"created to order_send": 1.5},
        {"order_send to answer": 1, "answer to reported": 7},
        {},
        {"order_send to fill": 2, "signal to fill": 4},
    ]
    assert {step for steps in said for step in steps} == STEPS.keys() - {"committed to submitted"}


def test_of_several_deals_the_first_ends_the_way_and_a_pending_order_waits_for_its_price() -> None:
    first, second = filled(1, "0.4", seconds=4), filled(2, "0.6", seconds=5)
    order = order_of(created(), started(), accepted(), second, first)
    assert ended(second, order) == {}
    assert ended(first, order) == {"order_send to fill": 2, "signal to fill": 4}
    pending = order_of(created(order_type="limit", price="1"), started(), accepted(), first)
    assert ended(first, pending) == {}


def test_what_is_not_known_has_no_steps() -> None:
    assert ended(started(), order_of(started())) == {}  # OrderCreated has not come
    assert ended(filled(), order_of(created(), filled())) == {}  # no ticket of it was accepted
    assert ended(rejected(), order_of(created(), rejected())) == {}
    # Of somebody else's connector, which says nothing of the way between.
    assert ended(returned(), order_of(created(), returned())) == {"answer to reported": 7}
    assert ended(filled(), order_of(created(), accepted(), filled())) == {"signal to fill": 4}
    assert dict(steps_between({"signal": at(0), "fill": at(1)})) == {"signal to fill": timedelta(seconds=1)}
