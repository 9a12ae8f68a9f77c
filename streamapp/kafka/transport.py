"""The Kafka transport of every app of ours: an idempotent producer, fetches that return soon, and no skipped record.

Faust loses records in two ways that these classes close (both were seen under kill -9 on a real Kafka):

- A record that was fetched and thrown away around a rebalance is to be read again, because Faust seeks to the committed
  offsets afterwards. Where nothing is committed yet, aiokafka does not seek at all: the first poll of a new group's
  partition was gone. We seek to the first record there.
- An acknowledgement beyond a record that was skipped is committed all the same if nothing was committed before, and if
  just one record was skipped always. We commit without holes only, and end the process at one: the record is
  redelivered.

And in a rebalance or a stop Faust waits for ever for what was begun; we wait ``drain_s``, and then let it go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streamapp.kafka.abort import abort
from streamapp.processes.garbage import collect_all

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
    """Faust's consumer thread with a short fetch wait, whose seek leaves no partition where it is."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read when the fetcher is made, at start: Faust offers no settings for them.
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms
        consumer._fetch_min_bytes = self.app.fetch_min_bytes
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """Seek each source partition to its committed offset or first record; changelogs are recovery's to seek."""
        found: Mapping[TP, int | None] = await self.call_thread(self._seek_sources)
        return found

    async def _seek_sources(self) -> Mapping[TP, int | None]:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        sources = [tp for tp in assigned if tp.topic not in self.app.tables.changelog_topics]
        first = await consumer.beginning_offsets(sources) if sources else {}
        offsets: dict[TP, int | None] = dict.fromkeys(assigned)
        for tp in sources:
            offsets[tp] = max(await consumer.committed(tp) or 0, first[tp])
            consumer.seek(tp, offsets[tp])
        return offsets


class Consumer(driver.Consumer):
    """Faust's consumer on that thread, which commits without holes."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit what was begun before the partitions go; Faust forgets the acknowledgements first.

        For ``drain_s`` at most: what is not finished then is redelivered to the next owner, and is acknowledged for
        nothing here.
        """
        if revoked and not self.app.should_stop:
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self.wait_empty()
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Finish and commit what was begun, for ``drain_s`` at most."""
        await self._drain(self.app.drain_s)
        self._abandon()

    async def _drain(self, patience_s: float) -> None:
        """Wait for acknowledgements. Faust's ``wait_empty`` can't be timed out: it swallows its cancellation."""
        until = self.loop.time() + patience_s
        collect_all()  # what was cleared from the queues is held by cycles only, and would be waited for
        while self._unacked_messages and not self.should_stop and (left_s := until - self.loop.time()) > 0:
            self._waiting_for_ack = self.loop.create_future()
            done, _ = await asyncio.wait([self._waiting_for_ack], timeout=min(left_s, 1.0))
            self._waiting_for_ack = None
            self._clean_unacked_messages()
            if not done:
                collect_all()
        await self.commit()

    def _abandon(self) -> None:
        """Count no later acknowledgement: after the rebalance it would be one beyond records that are redelivered."""
        if self._unacked_messages:
            self.log.warning("%s events were not finished in time: they are redelivered", len(self._unacked_messages))
        for message in self._unacked_messages:
            message.acked = True
        self._unacked_messages.clear()

    def _new_offset(self, tp: TP) -> int | None:
        acked = self._acked[tp]
        if acked and (skipped := self._first_skipped(tp, min(acked))) is not None:
            abort(
                f"{tp.topic} {tp.partition}: expected offset {skipped} to be acknowledged next, got {min(acked)}: "
                "records were skipped, the next start reads them again"
            )
        offset: int | None = super()._new_offset(tp)
        return offset

    def _first_skipped(self, tp: TP, acked: int) -> int | None:
        """Return the first offset before ``acked`` that is neither committed nor known to hold no record."""
        gaps = self._gap[tp]
        return next((each for each in range(self._committed_offset[tp] or 0, acked) if not gaps.overlaps(each)), None)


class Transport(driver.Transport):
    """Faust's aiokafka transport with both."""

    Producer = IdempotentProducer
    Consumer = Consumer
