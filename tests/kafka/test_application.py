"""What an app of ours is built with."""

from __future__ import annotations

from pathlib import Path

from streamapp.kafka.application import build_app


async def test_a_sink_reads_in_large_rare_fetches_and_waits_for_nothing_in_a_rebalance(tmp_path: Path) -> None:
    found = []
    for options in ({}, {"fetch_wait_ms": 500, "fetch_min_bytes": 1 << 20, "drain_s": 0.0}):
        app = build_app(
            "x",
            bootstrap="127.0.0.1:1",
            data_dir=tmp_path,
            partitions=1,
            replication_factor=1,
            web_port=1,
            **options,  # type: ignore[arg-type]
        )
        app.finalize()
        consumer = app.consumer._thread._create_worker_consumer(app.transport)
        found.append((consumer._fetch_max_wait_ms, consumer._fetch_min_bytes, app.conf.stream_wait_empty))
        await consumer.stop()
    assert found == [(200, 1, True), (500, 1 << 20, False)]
