"""Asking our own web views from the command line."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from streamapp.errors import Transient

TIMEOUT_S = 10.0


def get_json(url: str) -> tuple[int, Any]:
    """Return the status and the JSON that a view of ours answers, also where the status is an error's.

    Raises:
        Transient: nobody answers there.
    """
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 -- our own address, always http
            return answer.status, json.load(answer)
    except HTTPError as error:
        try:
            return error.code, json.load(error)
        except ValueError:
            return error.code, {"error": error.reason}
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Transient(f"nobody answers at {url} ({reason}). Is the stack up? Start it with `make up`.") from None
