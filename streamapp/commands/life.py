"""One line for each thing that happens to an order, as a person reads it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from streamapp.domain.vocabulary import visible

COLOURS = {
    "filled": "green",
    "partially_filled": "green",
    "submitted": "cyan",
    "pending": "dim",
    "rejected": "red",
    "failed": "red",
    "cancelled": "yellow",
    "accepted": "dim",
    "refused": "magenta",
}
CLOSED = {"sl": "by stop-loss", "tp": "by take-profit", "so": "by stop-out"}


class Life:
    """Prints messages of NATS as lines; what it doesn't know it leaves out."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, message: dict[str, Any]) -> None:
        """Print one line for an order/1, fill/1, error/1, accepted/1, refused/1 or answer/1."""
        line = _LINES.get(message.get("schema", ""))
        if line is not None:
            self._console.print(line(_visible(message)), soft_wrap=True)


def _visible(value: Any) -> Any:
    """Return a message whose texts, which others choose, do nothing to a terminal."""
    match value:
        case str():
            return visible(value)
        case dict():
            return {name: _visible(inner) for name, inner in value.items()}
        case list():
            return [_visible(inner) for inner in value]
    return value


def asked(message: dict[str, Any]) -> str:
    """Return what an order/1 asks of the broker: side, volume and symbol, and of a pending order its prices and end."""
    words = [message["side"], message["volume"], message["symbol"]]
    if (kind := message.get("order_type", "market")) != "market":
        words += [kind.replace("_", "-"), str(message.get("price"))]
        words += [f"limit {limit}"] if (limit := message.get("stop_limit_price")) else []
        words += [f"until {message['expiration'][:19]}"] if message.get("expiration") else [message["time_in_force"]]
    return " ".join(words)


def _order(message: dict[str, Any]) -> Text:
    text = _head(message, "updated_at", message["status"])
    text.append(
        f"  {asked(message)}  filled {message['filled_volume']}"
        f"{' at ' + message['average_price'] if message.get('average_price') else ''}"
        f"  {message['detail']}{': ' + message['reason'] if message.get('reason') else ''}"
    )
    expected = (message.get("slippage") or {}).get("expected")
    if expected:
        text.append(f"  slippage {expected['points']} points", style="dim")
    return text


def _fill(message: dict[str, Any]) -> Text:
    text = _head(message, "at", "fill")
    return text.append(
        f"  {message['side']} {message['volume']} {message['symbol']} at {message['price']}  deal {message['deal']}"
        f"{'  ' + closed if (closed := CLOSED.get(message['reason'])) else ''}",
        style="dim",
    )


def _error(message: dict[str, Any]) -> Text:
    text = _head(message, "at", "error")
    return text.append(f"  {message['kind']}: {message['retcode_name'] or ''} {message['message']}", style="dim")


def _accepted(message: dict[str, Any]) -> Text:
    text = _head(message, "at", "accepted")
    orders = ", ".join(message["order_ids"])
    return text.append(
        f"  {message['symbol']}  {f'order {orders}' if orders else 'no order'}  {message['detail'] or ''}".rstrip()
    )


def _refused(message: dict[str, Any]) -> Text:
    text = _head(message, "at", "refused")
    return text.append(f"  {message['symbol']}  {message['reason']}: {message.get('detail') or ''}")


def _answer(message: dict[str, Any]) -> Text:
    copies = (
        f"{one['account']} {one['decision']} {one['volume'] or one['reason'] or ''}".rstrip()
        for one in message["copies"]
    )
    text = _head(message | {"account": f"{len(message['copies'])} accounts"}, "at", "answered")
    return text.append(f"  {message['symbol']}  {', '.join(copies)}")


_LINES = {
    "order/1": _order,
    "fill/1": _fill,
    "error/1": _error,
    "accepted/1": _accepted,
    "refused/1": _refused,
    "answer/1": _answer,
}


def _head(message: dict[str, Any], time_field: str, word: str) -> Text:
    text = Text(f"{message[time_field][11:23]}  ")
    text.append(f"{message.get('signal_id') or '-':<22} {message['account']:<14} ")
    return text.append(f"{word:<16}", style=COLOURS.get(word, ""))
