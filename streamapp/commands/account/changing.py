"""``streamapp account cancel|modify|protect|close|close-by``: change what is there, and follow it to its outcome."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from streamapp.commands import completion
from streamapp.commands.account.asking import IssuedBy, Json, Name, asking, made, who
from streamapp.commands.account.following import followed, is_done, told
from streamapp.commands.signals import EXPIRATION_FORMATS
from streamapp.errors import ConfigurationError
from streamapp.messages.operation import (
    CancelRequest,
    CloseByRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    OperationRequest,
    ProtectRequest,
)
from streamapp.settings import load_settings

LONGEST_S = 86400.0
"""Beyond a day, whoever asked has forgotten it."""

OrderId = Annotated[
    str | None,
    typer.Argument(
        metavar="[ORDER_ID]", help="An order of ours, as `orders` lists it.", autocompletion=completion.orders
    ),
]
OfTicket = Annotated[int | None, typer.Option("--ticket", min=1, help="Instead: the broker's ticket, of anybody's.")]
Position = Annotated[int, typer.Argument(metavar="POSITION", min=1, help="Its number, as `positions` lists it.")]
StopLoss = Annotated[str | None, typer.Option(help="Price; 0 takes it away; left out, it stays.")]
TakeProfit = Annotated[str | None, typer.Option(help="Price; 0 takes it away; left out, it stays.")]
ValidFor = Annotated[
    float,
    typer.Option(min=1, max=LONGEST_S, metavar="SECONDS", help="Nothing is sent to the broker after that."),
]
RequestId = Annotated[
    str | None, typer.Option(help="Ask again for the same thing, under the id that was printed. It happens once.")
]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(cancel)
    group.command()(modify)
    group.command()(protect)
    group.command()(close)
    group.command("close-by")(close_by)


@dataclass(frozen=True)
class Asked:
    """How it is asked: what all the changes share."""

    account: str
    valid_for: float
    request_id: str | None
    issued_by: str | None
    as_json: bool


def cancel(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    order_id: OrderId = None,
    ticket: OfTicket = None,
    valid_for: ValidFor = 30.0,
    request_id: RequestId = None,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Cancel an order that works at the broker. What was executed of it stays executed."""
    asked = Asked(name, valid_for, request_id, issued_by, as_json)
    _carry_out(asked, "cancel", CancelRequest, **_one_of(order_id, ticket))


def modify(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    order_id: OrderId = None,
    ticket: OfTicket = None,
    price: Annotated[str | None, typer.Option(help="New price; of a stop or stop-limit order its stop price.")] = None,
    stop_limit_price: Annotated[str | None, typer.Option(help="New limit price of a stop-limit order.")] = None,
    stop_loss: StopLoss = None,
    take_profit: TakeProfit = None,
    expiration: Annotated[datetime | None, typer.Option(help="It ends then, UTC.", formats=EXPIRATION_FORMATS)] = None,
    valid_for: ValidFor = 30.0,
    request_id: RequestId = None,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Give an order that works at the broker new values; what is left out stays."""
    values: dict[str, Any] = {
        "price": price,
        "stop_limit_price": stop_limit_price,
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "expiration": None if expiration is None else expiration.replace(tzinfo=UTC),
    }
    _some(values)
    asked = Asked(name, valid_for, request_id, issued_by, as_json)
    _carry_out(asked, "modify", ModifyRequest, **_one_of(order_id, ticket), **values)


def protect(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    position: Position,
    stop_loss: StopLoss = None,
    take_profit: TakeProfit = None,
    valid_for: ValidFor = 30.0,
    request_id: RequestId = None,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Set stop loss and take profit of a position."""
    values = {"stop_loss": stop_loss, "take_profit": take_profit}
    _some(values)
    asked = Asked(name, valid_for, request_id, issued_by, as_json)
    _carry_out(asked, "protect", ProtectRequest, position_id=position, **values)


def close(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    position: Position,
    volume: Annotated[str | None, typer.Option(help="Lots, to close a part; left out, the whole position.")] = None,
    valid_for: ValidFor = 30.0,
    request_id: RequestId = None,
    epoch: Annotated[
        str | None, typer.Option(help="Beside --request-id: the journal that was asked first, as it was printed.")
    ] = None,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Close a position at the market, or a part of it.

    A part, and any close on a netting account, is an order of its own; it is done when the broker took it.
    """
    if (request_id is None) != (epoch is None):
        raise ConfigurationError(
            "expected --request-id and --epoch together: they were printed when it was asked for first, and keep a "
            "close from happening again in another journal (`streamapp account show` says the epoch of this one)"
        )
    asked = Asked(name, valid_for, request_id, issued_by, as_json)
    _carry_out(asked, "close", CloseRequest, epoch=epoch, position_id=position, volume=volume)


def close_by(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    position: Position,
    by_position: Annotated[int, typer.Argument(metavar="OPPOSITE", min=1, help="The opposite position's number.")],
    valid_for: ValidFor = 30.0,
    request_id: RequestId = None,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Close two opposite positions of one symbol against each other (hedging accounts)."""
    asked = Asked(name, valid_for, request_id, issued_by, as_json)
    _carry_out(asked, "close_by", CloseByRequest, position_id=position, by_position_id=by_position)


def _one_of(order_id: str | None, ticket: int | None) -> dict[str, Any]:
    if (order_id is None) == (ticket is None):
        raise ConfigurationError(
            "expected either ORDER_ID or --ticket. `streamapp account orders NAME` lists what works at the broker"
        )
    return {"order_id": order_id, "ticket": ticket}


def _some(values: dict[str, Any]) -> None:
    if all(value is None for value in values.values()):
        raise ConfigurationError(f"expected a new value: {', '.join('--' + name.replace('_', '-') for name in values)}")


def _carry_out(asked: Asked, kind: str, request: type[OperationRequest], **fields: Any) -> None:
    """Ask for it, tell of it, and end the command by what became of it."""
    progress = Console(stderr=True, highlight=False, soft_wrap=True)

    def tell(line: str) -> None:
        progress.print(line, markup=False)

    fields |= {"issued_by": who(asked.issued_by)}
    reply = asyncio.run(_asked(asked, kind, request, fields, tell))
    if reply is not None and asked.as_json:
        print(reply.encode().decode())
    elif reply is not None:
        Console(highlight=False, soft_wrap=True).print(told(reply), markup=False)
    raise typer.Exit(0 if reply is not None and is_done(reply) else 1)


async def _asked(
    asked: Asked, kind: str, request: type[OperationRequest], fields: dict[str, Any], tell: Callable[[str], None]
) -> OperationReply | None:
    """Return the last answer; None if there was none, and nobody knows."""
    fields |= {"account": asked.account, "request_id": asked.request_id or f"cli-{kind}-{secrets.token_hex(8)}"}
    # Before anybody is connected to: a price that is none needs no terminal to say so.
    made(request, **{**fields, "epoch": ""}, not_after=datetime.now(UTC))
    async with asking(load_settings(), asked.account) as terminal:
        hello = await terminal.hello()
        if "epoch" in fields:
            fields["epoch"] = fields["epoch"] or hello.epoch
        again = f"--request-id {fields['request_id']}" + (f" --epoch {fields['epoch']}" if "epoch" in fields else "")
        tell(f"to ask again for the same thing, repeat the command with {again}")
        if hello.connection != "ready":
            tell(f"the account is {hello.connection}{': ' + hello.detail if hello.detail else ''}")
        # By the terminal's clock, which judges it.
        message = made(request, **fields, not_after=hello.clock + timedelta(seconds=asked.valid_for))
        reply = await followed(terminal, kind, message, asked.valid_for, tell)
        if reply is None or (not is_done(reply) and reply.outcome in {"unknown", "recorded"}):
            tell(f"what becomes of it is not known yet: repeat the command with {again}")
        return reply
