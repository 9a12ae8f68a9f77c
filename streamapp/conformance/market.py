"""A simulated market of the suite's own, for as long as it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamapp.errors import ConfigurationError
from streamapp.simulator.wire import ADDRESS_VARIABLE

LOGIN = 50000001


@contextmanager
def own_market(profile: str, margin_mode: str | None) -> Iterator[str]:
    """Starts a market with one account of a profile and gives its address; ends it afterwards.

    Raises:
        ConfigurationError: it does not start, for example because there is no such profile.
    """
    account = {"name": "conformance", "login": LOGIN, "profile": profile, "margin_mode": margin_mode}
    with tempfile.TemporaryDirectory(prefix="streamapp-conformance-") as folder:
        accounts = Path(folder) / "accounts.json"
        accounts.write_text(json.dumps([account]), encoding="utf-8")
        command = [sys.executable, "-m", "streamapp.simulator", "--port", "0", "--accounts", str(accounts)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r" on (\S+:\d+)", line)
            if found is None:
                process.kill()
                raise ConfigurationError(f"expected the simulated market to start, got {process.communicate()[1]}")
            yield found.group(1)
        finally:
            process.kill()
            process.communicate()


@contextmanager
def market_at(address: str) -> Iterator[None]:
    """Has every worker of this process find the simulated market at an address."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before
