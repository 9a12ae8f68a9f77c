"""NATS → Kafka: every message becomes a record, in order, and is acknowledged only after Kafka has it."""
