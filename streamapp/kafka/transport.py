"""The Kafka transport of every app of ours: an idempotent producer, and fetches that return soon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch that has nothing to return.

Faust hard-codes 1500 ms: while one such fetch is held, records for other partitions of the same broker wait behind it.
50 ms costs an idle worker 20 small requests a second, and is the most that a record can be held up by an earlier empty
fetch.
"""

PRODUCER_BACKLOG = 10_000
"""Records that may wait to be sent before Faust holds back the streams; its own 100 is less than a window of lanes."""


class IdempotentProducer(driver.Producer):
    """A producer whose own retries never write a record twice nor out of order, acknowledged by all replicas."""

    async def on_start(self) -> None:
        """Start with a send buffer that holds more than Faust allows."""
        await super().on_start()
        self.buffer.max_messages = PRODUCER_BACKLOG

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a short fetch wait."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the fetcher is made, at start: Faust offers no setting for it.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class Consumer(driver.Consumer):
    """Faust's consumer on that thread."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class Transport(driver.Transport):
    """Faust's aiokafka transport with both."""

    Producer = IdempotentProducer
    Consumer = Consumer
