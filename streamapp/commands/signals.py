"""``streamapp signal`` and ``streamapp watch``: send a signal as a risk engine would, and see what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal as signals
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from streamapp.commands import completion
from streamapp.commands.life import Life
from streamapp.commands.web import Url, Web
from streamapp.domain.exits import Scope
from streamapp.domain.vocabulary import FINAL_STATUSES, OrderType, TimeInForce, time_text
from streamapp.errors import StreamappError
from streamapp.messages.signal import no_signal_id, signal_id_of
from streamapp.processes.stopping import end_process
from streamapp.settings import Settings, load_settings

HEARD = ("orders.>", "broker.fill.>", "broker.error.>", "signals.accepted.>", "signals.refused.>", "signals.answered.>")
"""The subjects on which the life of a signal is told."""
EXPIRATION_FORMATS = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(signal)
    app.command()(watch)


def signal(  # noqa: PLR0917 -- the arguments of a command line
    symbol: Annotated[str, typer.Argument(help="Symbol, e.g. EURUSD.", autocompletion=completion.symbols)],
    side: Annotated[str | None, typer.Argument(help="buy or sell; left out with an exit.")] = None,
    volume: Annotated[str | None, typer.Argument(help="Lots, e.g. 0.10; left out with an exit.")] = None,
    account: Annotated[
        str | None,
        typer.Option(help="Account; left out where routing or ClickHouse says it.", autocompletion=completion.accounts),
    ] = None,
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
    close: Annotated[bool, typer.Option("--close", help="Close what the strategy has opened.")] = False,
    reduce: Annotated[str | None, typer.Option(help="Close so many lots of it, the oldest position first.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Close it, and open as much on the other side.")] = False,
    modify: Annotated[bool, typer.Option("--modify", help="Set its stop-loss and take-profit; 0 takes away.")] = False,
    position: Annotated[int | None, typer.Option(help="Of an exit: only this position.")] = None,
    scope: Annotated[Scope | None, typer.Option(help="Of an exit: symbol for all strategies'.")] = None,
    signal_id: Annotated[str | None, typer.Option(help="Idempotency key; made up if left out.")] = None,
    wait_s: Annotated[float, typer.Option(help="How long to follow it.")] = 60.0,
) -> None:
    """Send one approved signal and follow it to its end at each of its accounts.

    Exit 0 only if it was filled; an exit, if all of its orders were, or nothing was open.
    """
    intent = _intent(close=close, reduce=reduce is not None, reverse=reverse, modify=modify)
    if intent == "open" and (side is None or volume is None):
        raise typer.BadParameter("expected SIDE and VOLUME, or one of --close, --reduce, --reverse, --modify")
    payload: dict[str, Any] = {
        "signal_id": signal_id or f"cli-{secrets.token_hex(6)}",
        "status": "approved",
        "account": account,
        "strategy": strategy,
        "symbol": symbol,
        "intent": intent,
        "position_id": position,
        "scope": scope,
        "side": side,
        "order_type": order_type,
        "volume": volume if reduce is None else reduce,
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


@dataclass
class Following:
    """What was heard of one signal; ``copies``: how many accounts it is split over, 0 where it is not.

    Attributes:
        answers: What each account answered last, accepted/1 or refused/1.
        statuses: The status of each order.
    """

    copies: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    is_answered_whole: bool = False

    def hear(self, content: dict[str, Any]) -> None:
        """Take in a message about it; they come in any order."""
        match content.get("schema"):
            case "accepted/1" | "refused/1":
                self.answers[content["account"]] = content
            case "answer/1":
                self.is_answered_whole = True
            case "order/1" if self.statuses.get(content["order_id"]) not in FINAL_STATUSES:
                self.statuses[content["order_id"]] = content["status"]

    @property
    def end(self) -> str | None:
        """How it ended: refused, filled, or how the first order ended that was not; None while it goes on."""
        if len(self.answers) < max(1, self.copies) or (self.copies and not self.is_answered_whole):
            return None
        orders = [order_id for answer in self.answers.values() for order_id in answer.get("order_ids", ())]
        ends = [self.statuses.get(order_id, "pending") for order_id in orders]
        if any(status not in FINAL_STATUSES for status in ends):
            return None
        refused = ["refused" for answer in self.answers.values() if answer["schema"] == "refused/1"]
        return next((end for end in (*refused, *ends) if end != "filled"), "filled")


def _intent(**asked: bool) -> str:
    """Return the one intent that is asked for, open if none is."""
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) > 1:
        raise typer.BadParameter(f"expected one of them, got {' and '.join(f'--{name}' for name in given)}")
    return given[0] if given else "open"


def watch(
    account: Annotated[str | None, typer.Option(help="Only this account.", autocompletion=completion.accounts)] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.", autocompletion=completion.symbols)] = None,
    url: Url = None,
) -> None:
    """Show every order's life as it happens, until Ctrl-C: from NATS, or with --url from the web that answers there."""
    settings, life = load_settings(), Life(Console())

    def heard(content: Any) -> None:
        if account in {None, content.get("account")} and symbol in {None, content.get("symbol")}:
            life.show(content)

    if url is None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_watch(settings, heard))
        return
    # No KeyboardInterrupt: one that is raised while a finalizer runs is lost, and this waits for the next message.
    with contextlib.suppress(ValueError):  # in a thread of another program, which ends it in its own way
        signals.signal(signals.SIGINT, lambda *_: end_process(0))
    for message in Web(url, settings).events(lambda text: typer.echo(text, err=True)):
        heard(message)


async def _send_and_follow(settings: Settings, payload: dict[str, Any], wait_s: float) -> str | None:
    from streamapp.messages.outgoing import OutgoingSignal
    from streamapp.messages.signal import is_split, route_of
    from streamapp.nats.connection import connect
    from streamapp.nats.signals import NatsSignals

    console = Console()
    life = Life(console)
    nats = await connect(settings, "streamapp-signal")
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    route = route_of(payload["strategy"], payload["symbol"], settings.execution.routing)
    following = Following(copies=len(route) if payload["account"] is None and is_split(route) else 0)

    async def heard(message: Any) -> None:
        content = json.loads(message.data)
        if content.get("signal_id") != payload["signal_id"]:
            return
        life.show(content)
        following.hear(content)
        if (end := following.end) is not None and not ended.done():
            ended.set_result(end)

    try:
        for subject in HEARD:
            await nats.subscribe(subject, cb=heard)
        await nats.flush()
        sent = OutgoingSignal.of(payload)
        stored = await NatsSignals(lambda: nats, settings.nats).stored(sent)
        console.print(f"sent {sent.signal_id} (stream sequence {stored.stream_seq})")
        try:
            return await asyncio.wait_for(ended, wait_s)
        except TimeoutError:
            raise StreamappError(
                f"no final status within {wait_s:g} s. That is not an outcome: the order may work at the broker, still "
                f"be sent until its not_after, or be in doubt. See `streamapp status` and `streamapp orders`."
            ) from None
    finally:
        await nats.close()


async def _watch(settings: Settings, heard: Callable[[Any], None]) -> None:
    from streamapp.nats.connection import connect

    nats = await connect(settings, "streamapp-watch")

    async def hear(message: Any) -> None:
        heard(json.loads(message.data))

    try:
        for subject in HEARD:
            await nats.subscribe(subject, cb=hear)
        await asyncio.Event().wait()
    finally:
        await nats.close()
