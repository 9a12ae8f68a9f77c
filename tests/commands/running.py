"""A command of ``streamapp``, run in this process: a start of Python for each would take most of a test's time."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from streamapp.cli import app
from streamapp.errors import StreamappError
from streamapp.settings import load_settings


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    said: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def again(self) -> list[str]:
        """The options that ask again for the same thing."""
        found = re.search(r"repeat the command with (--request-id .*)", self.said)
        assert found, self.said
        return found[1].split()


def run(*arguments: str | int, typed: str = "", **environment: str | None) -> Done:
    """Run a command with an environment of its own; its errors are said as :func:`streamapp.cli.main` does."""
    load_settings.cache_clear()
    variables = {"TERM": "dumb", "COLUMNS": "200"} | environment
    try:
        done = CliRunner().invoke(app, [*map(str, arguments)], input=typed, env=variables)
    finally:
        load_settings.cache_clear()
    if isinstance(done.exception, StreamappError):
        return Done(2, done.stdout, f"{done.stderr}{done.exception}")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


async def run_here(*arguments: str | int, typed: str = "", **environment: str | None) -> Done:
    """Do the same beside the loop of the test."""
    return await asyncio.to_thread(run, *arguments, typed=typed, **environment)
