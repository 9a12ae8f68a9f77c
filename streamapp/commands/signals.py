"""``streamapp signal`` and ``streamapp watch``: send a signal as a risk engine would, and see what becomes of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streamapp.commands.life import Life
from streamapp.domain.vocabulary import FINAL_STATUSES, OrderType, TimeInForce, time_text
from streamapp.errors import StreamappError
from streamapp.messages.signal import no_signal_id, signal_id_of
from streamapp.settings import Settings, load_settings

if TYPE_CHECKING:
    pass

HEARD = ("orders.>", "broker.fill.>", "broker.error.>", "signals.accepted.>", "signals.refused.>", "signals.answered.>")
"""The subjects on which the life of a signal is told."""
EXPIRATION_FORMATS = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(signal)
    app.command()(watch)


def signal(  # noqa: PLR0917 -- the arguments of a command line
    symbol: Annotated[str, typer.Argument(help="Symbol, e.g. EURUSD.")],
    side: Annotated[str, typer.Argument(help="buy or sell.")],
    volume: Annotated[str, typer.Argument(help="Lots, e.g. 0.10.")],
    account: Annotated[str | None, typer.Option(help="Account; left out where routing or ClickHouse says it.")] = None,
    order_type: Annotated[OrderType, typer.Option("--type", help="What kind of order.")] = "market",
    price: Annotated[str | None, typer.Option(help="Price of a limit order, or the stop price of a stop.")] = None,
    stop_limit_price: Annotated[str | None, typer.Option(help="Limit price of a stop-limit order.")] = None,
    time_in_force: Annotated[
        TimeInForce | None, typer.Option(help="Left out: until, if there is an expiration, otherwise gtc.")
    ] = None,
    expiration: Annotated[
        datetime | None, typer.Option(help="When a pending order ends, UTC.", formats=EXPIRATION_FORMATS)
    ] = None,
    stop_loss: Annotated[str | None, typer.Option(help="Price of the stop-loss.")] = None,
    take_profit: Annotated[str | None, typer.Option(help="Price of the take-profit.")] = None,
    strategy: Annotated[str, typer.Option(help="Strategy's name.")] = "manual",
    signal_id: Annotated[str | None, typer.Option(help="Idempotency key; made up if left out.")] = None,
    wait_s: Annotated[float, typer.Option(help="How long to follow it.")] = 60.0,
) -> None:
    """Send one approved signal and follow it to its end at each of its accounts. Exit 0 only if it was filled."""
    payload: dict[str, Any] = {
        "signal_id": signal_id or f"cli-{secrets.token_hex(6)}",
        "status": "approved",
        "account": account,
        "strategy": strategy,
        "symbol": symbol,
        "side": side,
        "order_type": order_type,
        "volume": volume,
        "price": price,
        "stop_limit_price": stop_limit_price,
        "time_in_force": time_in_force or ("gtc" if expiration is None else "until"),
        "expiration": None if expiration is None else time_text(expiration.replace(tzinfo=UTC)),
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "approved_at": time_text(datetime.now(UTC)),
    }
    if signal_id_of(payload) is None:
        raise no_signal_id(payload)  # its answer would name no id to know it by
    status = asyncio.run(_send_and_follow(load_settings(), payload, wait_s))
    raise typer.Exit(0 if status == "filled" else 1)


def watch(
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
) -> None:
    """Show every order's life as it happens, until Ctrl-C."""
    asyncio.run(_watch(load_settings(), account, symbol))


async def _send_and_follow(settings: Settings, payload: dict[str, Any], wait_s: float) -> str | None:
    from streamapp.messages.signal import is_split, route_of
    from streamapp.nats.connection import connect
    from streamapp.nats.outlet import advised_message_id, publish_signal

    console = Console()
    life = Life(console)
    nats = await connect(settings, "streamapp-signal")
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    route = route_of(payload["strategy"], payload["symbol"], settings.execution.routing)
    copies = len(route) if payload["account"] is None and is_split(route) else 0
    ends: dict[str, str] = {}
    answers: list[dict[str, Any]] = []

    async def heard(message: Any) -> None:
        content = json.loads(message.data)
        if content.get("signal_id") != payload["signal_id"]:
            return
        life.show(content)
        over = content.get("status") if content.get("status") in FINAL_STATUSES else None
        if content.get("schema") == "refused/1":
            over = "refused"
        if over:
            ends[content["account"]] = over
        if content.get("schema") == "answer/1":
            answers.append(content)
        if ends and len(ends) >= copies and (answers or not copies) and not ended.done():
            ended.set_result(next((end for end in ends.values() if end != "filled"), "filled"))

    try:
        for subject in HEARD:
            await nats.subscribe(subject, cb=heard)
        await nats.flush()
        raw = json.dumps(payload).encode()
        message_id = advised_message_id(payload["account"], payload["signal_id"], raw)
        sequence = await publish_signal(nats, raw, symbol=payload["symbol"], message_id=message_id)
        console.print(f"sent {payload['signal_id']} (stream sequence {sequence})")
        try:
            return await asyncio.wait_for(ended, wait_s)
        except TimeoutError:
            raise StreamappError(
                f"no final status within {wait_s:g} s. That is not an outcome: the order may work at the broker, still "
                f"be sent until its not_after, or be in doubt. See `streamapp status` and `streamapp orders`."
            ) from None
    finally:
        await nats.close()


async def _watch(settings: Settings, account: str | None, symbol: str | None) -> None:
    from streamapp.nats.connection import connect

    life = Life(Console())
    nats = await connect(settings, "streamapp-watch")

    async def heard(message: Any) -> None:
        content = json.loads(message.data)
        if account in {None, content.get("account")} and symbol in {None, content.get("symbol")}:
            life.show(content)

    try:
        for subject in HEARD:
            await nats.subscribe(subject, cb=heard)
        await asyncio.Event().wait()
    finally:
        await nats.close()
