import pytest
from hypothesis import given
from pydantic import ValidationError

from streamapp.domain.facts import BODIES, Fact, OrderCreated
from tests.kit.examples import bodies, created, operation, says


@given(bodies)
def test_a_fact_reads_itself_back(body: object) -> None:
    fact = says(body)  # type: ignore[arg-type]
    assert Fact.model_validate_json(fact.model_dump_json()) == fact


@given(bodies)
def test_saying_the_same_again_gives_the_same_id(body: object) -> None:
    assert says(body, 1).fact_id == says(body, 9, "again").fact_id  # type: ignore[arg-type]


def test_a_fact_of_an_unknown_kind_is_no_fact() -> None:
    content = created().model_dump(mode="json") | {"fact": "Guess"}
    with pytest.raises(ValidationError, match="expected a known fact, got 'Guess'"):
        Fact.model_validate(content)


def test_the_name_decides_the_type_of_the_body() -> None:
    assert BODIES["OrderCreated"] is OrderCreated
    content = created().model_dump(mode="json") | {"fact": "SubmitClaimed"}
    with pytest.raises(ValidationError, match="attempt"):
        Fact.model_validate(content)


def test_money_without_a_trade_is_named_by_its_account_and_deal_and_each_correction_anew() -> None:
    ids = [says(operation(4, revision=revision), order_id=None).fact_id for revision in (0, 1, 2)]
    assert ids == ["demo:operation:4", "demo:operation:4:corrected:1", "demo:operation:4:corrected:2"]
