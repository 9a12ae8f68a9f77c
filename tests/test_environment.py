from __future__ import annotations

import os
import subprocess
import sys

SHOW = "import os; print(*(name for name, value in os.environ.items() if name.startswith('STREAMAPP_') and value))"


def test_no_setting_of_the_machine_reaches_a_process_that_a_test_starts() -> None:
    assert subprocess.check_output([sys.executable, "-c", SHOW], text=True).split() == []


def test_settings_of_the_machine_are_gone_before_the_first_test() -> None:
    name = test_no_setting_of_the_machine_reaches_a_process_that_a_test_starts.__name__
    settings = {"STREAMAPP_CONFIG": "/no/such/file.toml", "STREAMAPP_NATS__URL": "nats://production:4222"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::{name}"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
