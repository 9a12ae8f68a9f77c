"""Kafka as the rest sees it: apps with the safe settings, awaited sends, topics, the watchdog, owners of partitions."""
