"""A folder of Parquet files: replaced whole or not at all, the same bytes again, one export at a time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from streamapp.clickhouse.rows import columns, rows_of
from streamapp.errors import ConfigurationError
from streamapp.export import parquet
from streamapp.export.parquet import ExportFolder
from streamapp.local.process import REPOSITORY
from tests.clickhouse import samples

DAY = date(2026, 11, 20)
KILLED = """
import sys, time
from datetime import date
from pathlib import Path
from streamapp.export.parquet import ExportFolder

def rows():
    print("begun", flush=True)
    time.sleep(600)
    yield ()

folder = ExportFolder(Path(sys.argv[1]), deployment="d", account=None)
folder.spill.touch()
folder.write("executions", date(2026, 11, 20), rows())
"""

OTHER_PARTS = """
import sys
others = "faust mode nats structlog orjson clickhouse_connect aiohttp rocksdict prometheus_client uvloop".split()
sys.modules.update(dict.fromkeys(others))
import streamapp.cli, streamapp.export.archive
"""


def test_the_part_parquet_alone_is_enough() -> None:
    done = subprocess.run([sys.executable, "-c", OTHER_PARTS], cwd=REPOSITORY, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ExportFolder]:
    made = ExportFolder(tmp_path / "export", deployment="d", account=None)
    yield made
    made.close()


def rows(*deals: int) -> list[tuple[Any, ...]]:
    return [
        (*made[0].values, "{}") for deal in deals for made in [rows_of(samples.record(samples.fill(deal)), "both")[0]]
    ]


def visible(path: Path) -> set[str]:
    """What a reader may take for data."""
    return {
        str(each.relative_to(path)) for each in path.rglob("*") if each.is_file() and ".streamapp" not in each.parts
    }


def test_the_same_rows_are_the_same_bytes(folder: ExportFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 3)
    digests = set()
    for _ in range(2):
        folder.write("executions", DAY, rows(*range(8)))
        digests.add(hashlib.sha256(folder.place("executions", DAY).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert (folder.rows("executions", DAY), pq.read_metadata(folder.place("executions", DAY)).num_row_groups) == (8, 3)


def test_days_are_the_partitions_of_one_data_set(folder: ExportFolder) -> None:
    folder.write("executions", DAY, rows(1, 2))
    folder.write("executions", date(2026, 11, 21), rows(3))
    found = ds.dataset(folder.path / "executions", partitioning="hive")
    assert found.schema.names == [*columns("executions"), "raw", "day"]
    assert found.to_table(filter=ds.field("day") == "2026-11-21")["deal"].to_pylist() == [3]
    assert sorted(folder.days()) == [("executions", DAY), ("executions", date(2026, 11, 21))]


def test_an_export_that_is_killed_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    first = ExportFolder(tmp_path, deployment="d", account=None)
    first.write("executions", DAY, rows(1))
    first.close()
    before = first.place("executions", DAY).read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(ConfigurationError, match=f"expected no other export into .*, got process {process.pid}"):
            ExportFolder(tmp_path, deployment="d", account=None)
        process.kill()
    assert visible(tmp_path) == {"executions/day=2026-11-20/executions.parquet"}
    assert first.place("executions", DAY).read_bytes() == before
    after = ExportFolder(tmp_path, deployment="d", account=None)
    assert not after.spill.exists()
    after.close()


def test_a_folder_holds_one_export_and_not_parts_of_two(tmp_path: Path) -> None:
    ExportFolder(tmp_path, deployment="d", account=None).close()
    for other in ({"deployment": "d", "account": "a"}, {"deployment": "e", "account": None}):
        with pytest.raises(
            ConfigurationError, match=r'got one of {"deployment": "d", "account": null}: name another f'
        ):
            ExportFolder(tmp_path, **other)
    ExportFolder(tmp_path, deployment="d", account=None).close()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"expected to write to .*/file, got: (Not a directory|File exists)"):
        ExportFolder(tmp_path / "file", deployment="d", account=None)
