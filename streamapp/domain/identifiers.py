"""Ids that are functions of what they name, so that a handler that runs again says the same thing again."""

from __future__ import annotations

import hashlib
import uuid

_MASK = 0xFFFFFFFF
_MURMUR_M = 0x5BD1E995  # the multiplier, shift and seed of Kafka's own murmur2, so that we agree with every Java client
_MURMUR_R = 24
_MURMUR_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Return Kafka's unsigned 32-bit murmur2 of ``data``.

    Source: the default partitioner of the Kafka clients (murmur2 with seed 0x9747b28c).
    """
    length = len(data)
    digest = (_MURMUR_SEED ^ length) & _MASK
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MURMUR_M & _MASK
        word = (word ^ (word >> _MURMUR_R)) * _MURMUR_M & _MASK
        digest = (digest * _MURMUR_M & _MASK) ^ word
    if rest := data[whole:]:
        digest = (digest ^ int.from_bytes(rest, "little")) * _MURMUR_M & _MASK
    digest = (digest ^ (digest >> 13)) * _MURMUR_M & _MASK
    return digest ^ (digest >> 15)


def partition_of(account: str, partitions: int) -> int:
    """Return the partition that holds everything of ``account``."""
    return (murmur2(account.encode()) & 0x7FFFFFFF) % partitions


def order_id_for(deployment: str, account: str, signal_id: str) -> str:
    """Return the order id of a signal: a UUID version 8 whose first 32 bits are murmur2(account).

    So an order id alone leads to its partition, see :func:`partition_of_order` (design: order-status).
    """
    content = f"{deployment}\x00{account}\x00{signal_id}".encode()
    number = (murmur2(account.encode()) << 96) | int.from_bytes(hashlib.sha256(content).digest()[:12], "big")
    number = number & ~(0xF << 76) | (0x8 << 76)  # version 8
    number = number & ~(0x3 << 62) | (0x2 << 62)  # RFC 9562 variant
    return str(uuid.UUID(int=number))


def partition_of_order(order_id: str, partitions: int) -> int | None:
    """Return the partition an order id of ours leads to, or None if the id is not a UUID version 8."""
    try:
        number = uuid.UUID(order_id)
    except ValueError:
        return None
    if number.version != 8:
        return None
    return ((number.int >> 96) & 0x7FFFFFFF) % partitions


def magic_of(order_id: str) -> int:
    """Return the magic number that carries an order at the broker: the first 63 bits of SHA-256(order_id), never 0."""
    return int.from_bytes(hashlib.sha256(order_id.encode()).digest()[:8], "big") >> 1 or 1


TAG_BEGINS = "g1"
SHORTEST_TAG = 8
"""So many characters of a tag still name an order among the few that are looked for: they hold 30 bits."""


def tag_of(order_id: str) -> str:
    """Return the 14 character ASCII tag that stands first in the broker's comment (a second key beside the magic)."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    number = int.from_bytes(hashlib.sha256(b"tag:" + order_id.encode()).digest()[:8], "big") >> 4
    return TAG_BEGINS + "".join(alphabet[(number >> shift) & 31] for shift in range(55, -1, -5))


def error_id_for(order_id: str, attempt: int, kind: str) -> str:
    """Return the id of an error notice about one attempt of an order."""
    return f"{order_id}:{attempt}:{kind}"


def fill_id_for(account: str, deal: int) -> str:
    """Return the id of a fill: the account and the broker's deal ticket."""
    return f"{account}:{deal}"
