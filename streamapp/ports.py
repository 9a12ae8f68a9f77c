"""The ports of the local stack, in one table (design: architecture "The local stack")."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WORKERS = 5
"""Trading workers whose ports stand before those of the other processes."""


@dataclass(frozen=True)
class Ports:
    """Every port is its number plus ``offset``, so that two stacks can run side by side."""

    offset: int = 0

    @property
    def kafka(self) -> int:
        """Kafka."""
        return 9092 + self.offset

    @property
    def kafka_controller(self) -> int:
        """Kafka's controller."""
        return 9093 + self.offset

    @property
    def nats(self) -> int:
        """NATS."""
        return 4222 + self.offset

    @property
    def nats_monitor(self) -> int:
        """NATS' monitor."""
        return 8222 + self.offset

    @property
    def clickhouse(self) -> int:
        """ClickHouse over HTTP."""
        return 8123 + self.offset

    @property
    def market(self) -> int:
        """The simulated MT5 server."""
        return 6080 + self.offset

    def trading(self, worker: int = 1) -> int:
        """Return the port of a trading worker, the first being 1: 6066 to 6070, and from 6106 on those of more."""
        return (6065 if worker <= FIRST_WORKERS else 6100) + worker + self.offset

    @property
    def warehouse(self) -> int:
        """Warehouse."""
        return 6071 + self.offset

    @property
    def mirror(self) -> int:
        """Mirror."""
        return 6072 + self.offset

    @property
    def terminals(self) -> int:
        """The terminals."""
        return 6073 + self.offset

    @property
    def notifier(self) -> int:
        """The notifier."""
        return 6074 + self.offset
