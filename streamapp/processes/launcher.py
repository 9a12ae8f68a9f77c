"""``python -m streamapp.processes.launcher MODULE ARGUMENT…``: run ``MODULE.main()``, for a process that lives long.

What is imported stays: of a terminal some 60,000 objects. They are not searched for garbage while they come, which
takes a quarter of the start, nor ever after: a search of all of them stands in front of somebody's order, for 65 ms on
a slow machine.
"""

from __future__ import annotations

import gc
import importlib
import sys

from streamapp.processes.garbage import settle


def main() -> int | None:
    """Import the module that the command line names, and return its exit code; the arguments left are the module's."""
    del sys.argv[0]
    gc.disable()
    module = importlib.import_module(sys.argv[0])
    settle()
    gc.enable()
    code: int | None = module.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
