"""How the module and the market speak: frames of JSON over one TCP connection.

A connection begins with `MAGIC`, so that HTTP can live on the same port. A frame is its length (4 bytes, little
endian) and UTF-8 JSON: a request is [command, method, argument, ...], a reply [command, code, text, result]. Replies
are matched to requests by the command's number alone, and a client sends one request at a time, as with the original
pipe: a late reply to the same command can be mistaken for the answer.
"""

import json
import struct
from typing import Any

MAGIC = b"MT5\x01"
HEAD = struct.Struct("<I")
DEFAULT_ADDRESS = "127.0.0.1:6080"
ADDRESS_VARIABLE = "STREAMAPP_SIMULATOR_ADDRESS"

# Far above the largest history that fits in a test, far below what would exhaust memory by a stray first byte.
MAX_FRAME = 1 << 28

# A reply with this code is no reply: the fault `crash_client` ends the process before its caller learns anything.
EXIT_CODE = 0

COMMANDS = {
    name: number
    for number, name in enumerate(
        (
            "hello", "initialize", "login", "version", "terminal_info", "account_info", "symbols_total",
            "symbols_get", "symbol_info", "symbol_info_tick", "symbol_select", "market_book_add",
            "market_book_get", "market_book_release", "copy_rates_from", "copy_rates_from_pos",
            "copy_rates_range", "copy_ticks_from", "copy_ticks_range", "orders_total", "orders_get",
            "order_calc_margin", "order_calc_profit", "order_check", "order_send", "positions_total",
            "positions_get", "history_orders_total", "history_orders_get", "history_deals_total",
            "history_deals_get",
        ),
        start=1,
    )
}  # fmt: skip


def frame(text: str) -> bytes:
    """A frame around JSON text."""
    body = text.encode()
    return HEAD.pack(len(body)) + body


def request_frame(method: str, arguments: tuple[Any, ...]) -> bytes:
    """A request."""
    return frame(json.dumps([COMMANDS[method], method, *arguments]))


def reply_frame(command: int, code: int, text: str, result: str) -> bytes:
    """A reply; `result` is JSON text."""
    return frame(f"[{command},{code},{json.dumps(text)},{result}]")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        ValueError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"expected {ADDRESS_VARIABLE} as host:port, got {address!r}")
    return host.strip("[]"), int(port)
