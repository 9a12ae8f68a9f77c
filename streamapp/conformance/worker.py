"""The process that holds the module: it does one call at a time as told on its standard input, and may hang or die.

Each line in is a JSON object {do, ...}, each line out its answer. Whatever the module prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import sys
import time
from typing import Any, TextIO

from streamapp.conformance.wire import encode, unpack

_CONSTANT = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+")


def _call(module: Any, order: dict[str, Any]) -> dict[str, Any]:
    function = getattr(module, order["function"], None)
    if function is None:
        return {"raised": ["AttributeError", f"no function {order['function']}"], "error": None, "ms": 0.0}
    args, kwargs = unpack(order["args"]), unpack(order["kwargs"])
    begun = time.perf_counter()
    try:
        answer: dict[str, Any] = {"result": encode(function(*args, **kwargs))}
    except Exception as error:  # noqa: BLE001  # whatever the module raises is what is asked for
        answer = {"raised": [type(error).__name__, str(error)]}
    answer["ms"] = (time.perf_counter() - begun) * 1000
    answer["error"] = list(module.last_error()) if order["function"] != "last_error" else None
    return answer


def _time(module: Any, order: dict[str, Any]) -> dict[str, Any]:
    function, args, kwargs = getattr(module, order["function"]), unpack(order["args"]), unpack(order["kwargs"])
    taken = []
    for _ in range(order["times"]):
        begun = time.perf_counter()
        function(*args, **kwargs)
        taken.append((time.perf_counter() - begun) * 1000)
    return {"ms": taken}


def _surface(module: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Everything about the module that no call tells."""
    names = [name for name in dir(module) if not name.startswith("_")]
    return {
        "version": str(getattr(module, "__version__", "")),
        "constants": {
            name: value
            for name in names
            if _CONSTANT.fullmatch(name) and isinstance(value := getattr(module, name), int | float)
        },
        "functions": [name for name in order["functions"] if callable(getattr(module, name, None))],
        "structs": {name: _struct(getattr(module, name, None)) for name in order["structs"]},
    }


def _struct(kind: Any) -> dict[str, Any] | None:
    if kind is None:
        return None
    count = int(getattr(kind, "n_fields", 0))
    made = _made(kind, count)
    return {
        "fields": list(getattr(kind, "__match_args__", ())),
        "counts": [getattr(kind, name, None) for name in ("n_fields", "n_sequence_fields", "n_unnamed_fields")],
        "is_tuple": isinstance(kind, type) and issubclass(kind, tuple),
        "methods": [name for name in ("_asdict", "_fields", "_make", "_replace") if hasattr(kind, name)],
        "pickles": made is not None and _pickles(made),
    }


def _made(kind: Any, count: int) -> Any:
    try:
        return kind([0] * count)
    except TypeError:
        return None


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError):
        return False
    return True


DEEDS = {"call": _call, "time": _time, "surface": _surface}


def serve(module: Any, orders: TextIO, answers: TextIO) -> None:
    """Does what `orders` say, one line at a time, until they end."""
    for line in orders:
        order = json.loads(line)
        print(json.dumps(DEEDS[order["do"]](module, order)), file=answers, flush=True)  # the protocol


def main(arguments: list[str]) -> int:
    """Imports the module named by the only argument and serves it."""
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        module = importlib.import_module(arguments[0])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)  # the protocol
        return 2
    print(json.dumps({"ready": True}), file=answers, flush=True)  # the protocol
    serve(module, sys.stdin, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
