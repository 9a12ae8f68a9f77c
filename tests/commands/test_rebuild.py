"""``streamapp rebuild``: what can't be meant is refused before anything is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from streamapp.cli import app
from streamapp.errors import Transient
from streamapp.local.ports import free_port
from streamapp.settings import load_settings


def said(*arguments: str) -> str:
    """Return what is printed about arguments that are refused, in one line."""
    shown = CliRunner().invoke(app, ["rebuild", *arguments], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    return " ".join(shown.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected either --into NAME or --compare-only"),
        (("--into", "2", "--compare-only"), "expected either --into NAME or --compare-only"),
        (("--compare-only", "--until", "2026-11-20T12:00:00Z"), "expected no other option but --json"),
        (("--compare-only", "--may-open", "a"), "expected no other option but --json"),
        (("--into", "2", "--until", "yesterday"), "expected now, or a time such as 2026-11-20T12:00:00+00:00"),
        (("--into", "2", "--until", "2026-11-20T12:00:00"), "got '2026-11-20T12:00:00'"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(arguments: tuple[str, ...], words: str) -> None:
    assert words in said(*arguments)


@pytest.mark.parametrize("arguments", [("--into", "2"), ("--compare-only",)])
def test_a_kafka_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("STREAMAPP_KAFKA__BOOTSTRAP", f"127.0.0.1:{free_port()}")
    load_settings.cache_clear()
    try:
        shown = CliRunner().invoke(app, ["rebuild", *arguments])
    finally:
        load_settings.cache_clear()
    assert isinstance(shown.exception, Transient)
    assert "does not answer" in str(shown.exception)
