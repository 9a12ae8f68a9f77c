"""The one request that is sent, of several where only the terminal program can say which it takes."""

from __future__ import annotations

from collections.abc import Sequence

from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.request import RefusedError
from streamapp.terminal.account.worker_client import READ
from streamapp.terminal.pipe.calls import OrderCheck
from streamapp.terminal.pipe.structs import TradeRequest

CHECK_PASSED = 0
"""``order_check`` has no retcode of success; the package names none for this."""


async def chosen(
    connection: BrokerConnection, requests: Sequence[TradeRequest], *, urgency: int = READ
) -> TradeRequest:
    """Return the first of ``requests`` that ``order_check`` takes: asked, never tried by sending. One alone is it.

    Raises:
        RefusedError: it takes none.
        NotHandedOverError, WorkerLostError: it could not be asked.
    """
    if len(requests) == 1:
        return requests[0]
    for request in requests:
        if (await connection.ask(OrderCheck(request), urgency=urgency)).value.retcode == CHECK_PASSED:
            return request
    symbol = requests[0]["symbol"]
    raise RefusedError("invalid", f"expected a filling mode that {symbol} allows, order_check took none")
