"""What an app of ours is built with, and how it ends."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, NoReturn

import pytest
from faust.assignor.client_assignment import ClientAssignment
from faust.types import TP
from prometheus_client import CollectorRegistry

from streamapp.kafka import application
from streamapp.kafka.abort import SOFTWARE
from streamapp.kafka.application import StreamApp, build_app
from streamapp.kafka.assignment import is_address_shared
from streamapp.kafka.sensors import FaustSensors


def app_in(folder: Path, **options: Any) -> StreamApp:
    values: dict[str, Any] = {"bootstrap": "127.0.0.1:1", "partitions": 1, "replication_factor": 1, "web_port": 1}
    return build_app("x", data_dir=folder, **(values | options))


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
    def abort(reason: str, *, cause: BaseException, code: int = SOFTWARE) -> NoReturn:
        raise SystemExit(reason, code, cause)

    monkeypatch.setattr(application, "abort", abort)
    app, error = app_in(tmp_path), ValueError("tripped over what is gone")
    if stopping:
        app._stopped.set()
    with pytest.raises(SystemExit, match=reason) as left:
        await app.crash(error)
    assert left.value.args[1:] == (code, error)


@pytest.mark.parametrize(
    ("distribution", "is_shared"),
    [
        ({"http://a:1": {"in": [0, 1]}, "http://b:1": {"in": [2]}}, False),
        ({"http://a:1": {"in": [2]}}, True),
    ],
    ids=["each has its own", "another one has it too"],
)
def test_a_worker_sees_that_another_one_is_known_by_its_address(
    tmp_path: Path, distribution: dict[str, dict[str, list[int]]], *, is_shared: bool
) -> None:
    app = app_in(tmp_path, partitions=3)
    app.Table("desk")
    app.conf.canonical_url = "http://a:1"
    app.assignor._assignment = ClientAssignment(actives={"in": [0, 1], "x-desk-changelog": [0, 1]}, standbys={})
    app.assignor.external_topic_distribution = distribution
    assert is_address_shared(app) == is_shared


async def test_a_worker_is_the_same_member_at_every_start_and_another_one_under_another_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def member(host: str, url: str, folder: str = "data") -> str:
        monkeypatch.setattr(platform, "node", lambda: host)
        app = app_in(tmp_path / folder, advertised_url=url)
        app.conf.canonical_url = "http://from.the.command.line:1"
        app._name_member()
        assert str(app.conf.canonical_url) == url
        return str(app.conf.consumer_group_instance_id)

    first = member("trading-0", "http://trading-0:6066")
    assert first == member("trading-0", "http://trading-0:6066")
    assert first.startswith("x-trading-0-6066-")
    others = {member("trading-1", "http://trading-0:6066"), member("trading-0", "http://b:6066")}
    assert len({first, *others, member("trading-0", "http://trading-0:6066", "data-2")}) == 4
