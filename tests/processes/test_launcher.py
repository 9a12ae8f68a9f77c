"""A child is started by a launcher, which keeps what it imports out of the garbage collector's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from streamapp.processes.children import launched

PROGRAM = """
import gc, sys

def main():
    print(gc.isenabled(), gc.get_freeze_count() > 1000, sys.argv[1:])
    return 3
"""


def test_a_module_runs_with_its_arguments_and_exit_code_and_nothing_imported_is_collected(tmp_path: Path) -> None:
    (tmp_path / "program_of_a_test.py").write_text(PROGRAM)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path.cwd())))
    ran = subprocess.run(
        [sys.executable, *launched("program_of_a_test"), "--account", "a"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (3, "True True ['--account', 'a']\n"), ran.stderr
