"""Which partition a key belongs to: the hash that aiokafka, Java's client and our order ids agree on."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition, 0 to ``partitions`` - 1, that Kafka's default partitioner (murmur2) chooses for ``key``."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
