import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.identifiers import (
    error_id_for,
    fill_id_for,
    magic_of,
    murmur2,
    order_id_for,
    partition_of,
    partition_of_order,
    tag_of,
)


@pytest.mark.parametrize(
    ("key", "hashed"),
    # Kafka's own test vectors of murmur2 (org.apache.kafka.common.utils.UtilsTest), as unsigned numbers.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_the_hash_is_kafkas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed % 2**32


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 64))
def test_whoever_holds_an_order_id_knows_its_partition(account: str, signal_id: str, partitions: int) -> None:
    order_id = order_id_for("streamapp", account, signal_id)
    assert uuid.UUID(order_id).version == 8
    assert partition_of_order(order_id, partitions) == partition_of(account, partitions)


def test_ids_of_somebody_else_lead_nowhere() -> None:
    assert partition_of_order("not an id", 8) is None
    assert partition_of_order(str(uuid.UUID(int=1, version=4)), 8) is None


@given(st.text())
def test_a_magic_is_a_positive_signed_64_bit_number_and_a_tag_14_characters(order_id: str) -> None:
    assert 0 < magic_of(order_id) < 2**63
    assert tag_of(order_id).isascii()
    assert len(tag_of(order_id)) == 14


def test_notices_are_named_after_what_they_are_about() -> None:
    assert error_id_for("o", 1, "rejected") == "o:1:rejected"
    assert fill_id_for("demo", 7) == "demo:7"
