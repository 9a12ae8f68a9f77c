"""What an app of ours is built with, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from streamapp.kafka import application
from streamapp.kafka.application import StreamApp, build_app
from streamapp.kafka.exits import SOFTWARE
from streamapp.kafka.sensors import FaustSensors


def app_in(folder: Path, **options: Any) -> StreamApp:
    return build_app(
        "x", bootstrap="127.0.0.1:1", data_dir=folder, partitions=1, replication_factor=1, web_port=1, **options
    )


async def test_a_sink_reads_in_large_rare_fetches_and_waits_for_nothing_in_a_rebalance(tmp_path: Path) -> None:
    found = []
    kinds: tuple[dict[str, Any], ...] = ({}, {"fetch_wait_ms": 500, "fetch_min_bytes": 1 << 20, "drain_s": 0.0})
    for options in kinds:
        app = app_in(tmp_path, **options)
        app.finalize()
        consumer = app.consumer._thread._create_worker_consumer(app.transport)
        found.append((consumer._fetch_max_wait_ms, consumer._fetch_min_bytes, app.conf.stream_wait_empty))
        await consumer.stop()
    assert found == [(200, 1, True), (500, 1 << 20, False)]


async def test_what_faust_counts_is_shown_of_the_partitions_that_are_ours_alone(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    registry = CollectorRegistry()
    registry.register(FaustSensors(app))
    ours, theirs = TP("t", 0), TP("t", 1)
    app.finalize()
    app.consumer._read_offset[ours] = 6
    for tp in (ours, theirs):
        app.monitor.track_tp_end_offset(tp, 10)
        app.monitor.tp_read_offsets[tp] = 6
    app.monitor.on_topic_buffer_full(ours)
    app.monitor.on_topic_buffer_full(theirs)
    # Offset 6 was taken, 7 to 9 were not: the end is the offset of the next record.
    assert registry.get_sample_value("streamapp_faust_behind", {"topic": "t", "partition": "0"}) == 3
    assert registry.get_sample_value("streamapp_faust_behind", {"topic": "t", "partition": "1"}) is None
    assert registry.get_sample_value("streamapp_faust_buffer_full_total", {"topic": "t"}) == 2
    assert registry.get_sample_value("streamapp_faust_commit_seconds") == 0


@pytest.mark.parametrize(("stopping", "code", "reason"), [(False, 70, "crashed"), (True, 0, "the stop was cut short")])
async def test_a_part_that_fails_ends_the_process_and_is_no_failure_in_a_stop_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: bool, code: int, reason: str
) -> None:
    def leave(reason: str, *, cause: BaseException, code: int = SOFTWARE) -> NoReturn:
        raise SystemExit(reason, code, cause)

    monkeypatch.setattr(application, "leave", leave)
    app, error = app_in(tmp_path), ValueError("tripped over what is gone")
    if stopping:
        app._stopped.set()
    with pytest.raises(SystemExit, match=reason) as left:
        await app.crash(error)
    assert left.value.args[1:] == (code, error)
