"""The one request that is sent, of several where only the terminal program can say which it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.request import RefusedError
from streamapp.terminal.account.worker_client import READ

CHECK_PASSED = 0
"""``order_check`` has no retcode of success; the package names none for this."""


async def chosen(
    connection: BrokerConnection, requests: Sequence[dict[str, Any]], *, urgency: int = READ
) -> dict[str, Any]:
    """Return the first of ``requests`` that ``order_check`` takes: asked, never tried by sending. One alone is it.

    Raises:
        RefusedError: it takes none.
        NotHandedOverError, WorkerLostError: it could not be asked.
    """
    if len(requests) == 1:
        return requests[0]
    for request in requests:
        check = (await connection.ask("check", urgency=urgency, request=request)).value
        if check is not None and check["retcode"] == CHECK_PASSED:
            return request
    symbol = requests[0]["symbol"]
    raise RefusedError("invalid", f"expected a filling mode that {symbol} allows, order_check took none")
