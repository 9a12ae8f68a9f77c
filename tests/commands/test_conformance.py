"""The command: its exit codes, its report, and what it asks for before it trades."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamapp.cli import app
from streamapp.conformance.report import load


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["mt5-conformance", *arguments])
    return result.exit_code, result.output


@pytest.mark.stack
def test_it_examines_the_simulated_module_on_a_market_of_its_own(tmp_path: Path) -> None:
    reports = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in reports:
        code, output = invoke("--report", str(path))
        assert code == 0, output
        assert "conformant; the report is in" in output
    assert load(reports[0]).conformant
    code, output = invoke("--compare", *map(str, reports))
    assert (code, "0 differences" in output) == (0, True)
    text = reports[1].read_text("utf-8")
    reports[1].write_text(text.replace('Invalid \\"volume\\" argument', "Invalid volume"), "utf-8")
    code, output = invoke("--compare", *map(str, reports))
    assert code == 1
    assert "DIFFERENT order_send(volume=1)" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--module", "MetaTrader5"], "expected --demo-account-ok"),
        (["--module", "no_such_module", "--demo-account-ok"], "expected to import no_such_module"),
        (["--address", "127.0.0.1:1"], "expected initialize to connect"),
        (["--profile", "nobody"], "expected profile of conformance to be one of"),
        (["--compare", "nothing.json", "nowhere.json"], "expected a report of mt5-conformance"),
    ],
)
def test_what_it_can_not_do_it_says_in_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    code, output = invoke(*arguments, "--report", str(tmp_path / "r.json"))
    assert (code, sentence in output) == (2, True), output
