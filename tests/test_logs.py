"""Logs as JSON: each line an object that names what it is about, and as text as they always were."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamapp import logs
from streamapp.settings import AccountSettings, LogSettings, Settings
from streamapp.terminal.parent import TerminalSupervisor
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import accepted, deal, started

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
logger = logging.getLogger("streamapp.test")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Log JSON into memory; what is yielded returns the objects so far."""
    monkeypatch.setattr(logs, "_is_json", False)
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    logs.set_up(LogSettings(format="json"), "%(message)s", handler=logging.StreamHandler(stream), process="trading")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.basicConfig(handlers=handlers, level=level, force=True)


def test_a_line_names_what_it_is_about_and_nothing_when_it_is_about_nothing(lines: Any) -> None:
    logger.info("started")
    with logs.about(account="a", signal_id=None, trace=TRACE):
        logger.warning("order %s is in doubt: %s", "o-1", "über")
    logger.info("account %s: ready", "b")
    nothing, doubt, ready = lines()
    assert nothing.keys() == {"at", "level", "logger", "message", "process"}
    assert (doubt["message"], doubt["level"], doubt["logger"]) == (
        "order o-1 is in doubt: über",
        "warning",
        "streamapp.test",
    )
    assert (doubt["account"], doubt["order_id"], doubt["trace_id"]) == ("a", "o-1", TRACE.split("-")[1])
    assert ready["account"] == "b"
    assert "trace_id" not in ready


def test_an_error_is_one_line_without_the_values_of_its_variables(lines: Any) -> None:
    password = "s3cret".upper()
    try:
        raise ValueError("broken" if password else "")
    except ValueError:
        logger.exception("it broke")
    [line] = lines()
    assert "ValueError: broken" in line["exception"]
    assert "S3CRET" not in json.dumps(line)


async def test_what_a_lane_logs_names_its_account_signal_and_trace_and_an_alarm_its_order(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await DeskWorld().start()
    order_id = await world.signal()
    more = (("started", order_id, started().body), ("accepted", order_id, accepted().body))
    await world.report(*more, ("deal", order_id, deal(9, "5")))
    alarms = [line for line in lines() if line["message"].startswith("overfilled")]
    assert [(line["account"], line["order_id"]) for line in alarms] == [(ACCOUNT, order_id)]

    def breaks(*_: Any) -> Any:
        raise ArithmeticError

    monkeypatch.setattr("streamapp.desk.decide.decide_signal", breaks)
    record = world.give_signal("s-2")
    await record
    await world.settled()
    [broke] = [line for line in lines() if "a rule broke" in line["message"]]
    assert (broke["account"], broke["signal_id"]) == (ACCOUNT, "s-2")


def test_as_text_nothing_changes_and_structlog_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import logging, sys\nfrom streamapp import logs\nfrom streamapp.settings import LogSettings\n"
        "logs.set_up(LogSettings(), '%(levelname)s %(name)s %(message)s')\n"
        "with logs.about(account='a'): logging.getLogger('x').info('order %s', 'o-1')\n"
        "assert logs.faust_logging(LogSettings()) is None\nassert 'structlog' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "INFO x order o-1\n")


@pytest.mark.parametrize("log", [LogSettings(format="json", level="warning"), LogSettings(level="warning")])
def test_faust_sets_up_the_same_for_its_worker(lines: Any, log: LogSettings) -> None:
    from mode.utils.logging import setup_logging

    root = logging.getLogger()
    handlers = list(root.handlers)
    setup_logging(loglevel="info", logging_config=logs.faust_logging(log))
    assert root.level == logging.WARNING
    [handler] = root.handlers
    record = logging.LogRecord("faust", logging.ERROR, __file__, 1, "account %s: %s", ("a", {"not": object}), None)
    if log.format == "json":
        assert json.loads(handler.format(record))["account"] == "a"
    logging.basicConfig(handlers=handlers, force=True)


def test_where_structlog_is_not_installed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamapp.errors import ConfigurationError

    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ConfigurationError, match=r"expected the package structlog .* pip install"):
        logs.json_lines()


def test_what_a_child_prints_that_is_no_json_becomes_a_line_of_it(lines: Any) -> None:
    output = io.StringIO()
    settings = Settings(log=LogSettings(format="json"), accounts={"a": AccountSettings(login=1)})
    supervisor = TerminalSupervisor(settings, ["a"], output)
    supervisor._pass_on(b'{"message": "its own"}\n\nTraceback: ...\n', "a")
    assert output.getvalue() == '{"message": "its own"}\n'
    [line] = lines()
    assert (line["message"], line["account"]) == ("account a: printed Traceback: ...", "a")
