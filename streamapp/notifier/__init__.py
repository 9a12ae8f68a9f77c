"""Kafka → persons: what somebody should look at, told by apprise to whatever a person reads."""
