from __future__ import annotations

from pathlib import Path

import pytest

from streamapp.terminal.logfile import LogFile


def test_a_full_log_is_turned_over_and_only_so_many_are_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "terminals.log", limit_bytes=10, kept=2)
    for number in range(5):
        log.write(f"line {number}\n")
    log.close()
    content = {path.name: path.read_text(encoding="utf-8") for path in log.path.parent.iterdir()}
    assert content == {
        "terminals.log": "line 4\n",
        "terminals.log.1": "line 3\n",
        "terminals.log.2": "line 2\n",
    }


def test_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "terminals.log"
    path.write_text("before\n", encoding="utf-8")
    log = LogFile(path)
    log.write("größer ≥\n")
    log.close()
    assert path.read_text(encoding="utf-8") == "before\ngrößer ≥\n"


def test_a_log_that_somebody_holds_open_grows_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise PermissionError("the file is open in another program")

    monkeypatch.setattr(Path, "replace", held)
    log = LogFile(tmp_path / "terminals.log", limit_bytes=10)
    for number in range(3):
        log.write(f"line {number}\n")
    log.close()
    assert log.path.read_text(encoding="utf-8") == "line 0\nline 1\nline 2\n"
