"""Whether NATS, ClickHouse, the archive, the tables and the broker's own ledger tell the same story."""
