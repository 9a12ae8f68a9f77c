"""How the module and the market speak: frames of JSON over one TCP connection, structs as arrays of their values.

A connection begins with ``MAGIC``, so that HTTP can live on the same port. A frame is its length (4 bytes, little
endian) and UTF-8 JSON: a request is [command, method, argument, ...], a reply [command, code, text, result]. Replies
are matched to requests by the command's number alone, and a client sends one request at a time, as with the original
pipe: a late reply to the same command can be mistaken for the answer.
"""

from __future__ import annotations

import json
import struct
from typing import Any

MAGIC = b"MT5\x01"
HEAD = struct.Struct("<I")
DEFAULT_ADDRESS = "127.0.0.1:6080"
ADDRESS_VARIABLE = "STREAMAPP_SIMULATOR_ADDRESS"

# Far above the largest history that fits in a test, far below what would exhaust memory by a stray first byte.
MAX_FRAME = 1 << 28

# A reply with this code is no reply: the fault ``crash_client`` ends the process before its caller learns anything.
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


FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    name: tuple((field, kind) for field, _, kind in (entry.partition(":") for entry in text.split()))
    for name, text in {
        "TradePosition": """
            ticket:i time:i time_msc:i time_update:i time_update_msc:i type:i magic:i identifier:i reason:i volume:f
            price_open:f sl:f tp:f price_current:f swap:f profit:f symbol:s comment:s external_id:s
        """,
        "TradeOrder": """
            ticket:i time_setup:i time_setup_msc:i time_done:i time_done_msc:i time_expiration:i type:i type_time:i
            type_filling:i state:i magic:i position_id:i position_by_id:i reason:i volume_initial:f volume_current:f
            price_open:f sl:f tp:f price_current:f price_stoplimit:f symbol:s comment:s external_id:s
        """,
        "TradeDeal": """
            ticket:i order:i time:i time_msc:i type:i entry:i magic:i position_id:i reason:i volume:f price:f
            commission:f swap:f profit:f fee:f symbol:s comment:s external_id:s
        """,
        "TradeRequest": """
            action:i magic:i order:i symbol:s volume:f price:f stoplimit:f sl:f tp:f deviation:i type:i
            type_filling:i type_time:i expiration:i comment:s position:i position_by:i
        """,
        "SymbolInfo": """
            custom:b chart_mode:i select:b visible:b session_deals:i session_buy_orders:i session_sell_orders:i
            volume:i volumehigh:i volumelow:i time:i digits:i spread:i spread_float:b ticks_bookdepth:i
            trade_calc_mode:i trade_mode:i start_time:i expiration_time:i trade_stops_level:i trade_freeze_level:i
            trade_exemode:i swap_mode:i swap_rollover3days:i margin_hedged_use_leg:b expiration_mode:i
            filling_mode:i order_mode:i order_gtc_mode:i option_mode:i option_right:i bid:f bidhigh:f bidlow:f ask:f
            askhigh:f asklow:f last:f lasthigh:f lastlow:f volume_real:f volumehigh_real:f volumelow_real:f
            option_strike:f point:f trade_tick_value:f trade_tick_value_profit:f trade_tick_value_loss:f
            trade_tick_size:f trade_contract_size:f trade_accrued_interest:f trade_face_value:f
            trade_liquidity_rate:f volume_min:f volume_max:f volume_step:f volume_limit:f swap_long:f swap_short:f
            margin_initial:f margin_maintenance:f session_volume:f session_turnover:f session_interest:f
            session_buy_orders_volume:f session_sell_orders_volume:f session_open:f session_close:f session_aw:f
            session_price_settlement:f session_price_limit_min:f session_price_limit_max:f margin_hedged:f
            price_change:f price_volatility:f price_theoretical:f price_greeks_delta:f price_greeks_theta:f
            price_greeks_gamma:f price_greeks_vega:f price_greeks_rho:f price_greeks_omega:f price_sensitivity:f
            basis:s category:s currency_base:s currency_profit:s currency_margin:s bank:s description:s exchange:s
            formula:s isin:s name:s page:s path:s
        """,
        "OrderCheckResult": """
            retcode:i balance:f equity:f profit:f margin:f margin_free:f margin_level:f comment:s request:r
        """,
        "OrderSendResult": """
            retcode:i deal:i order:i volume:f price:f bid:f ask:f comment:s request_id:i retcode_external:i
            request:r
        """,
        "Tick": """
            time:i bid:f ask:f last:f volume:i time_msc:i flags:i volume_real:f
        """,
        "TerminalInfo": """
            community_account:b community_connection:b connected:b dlls_allowed:b trade_allowed:b
            tradeapi_disabled:b email_enabled:b ftp_enabled:b notifications_enabled:b mqid:b build:i maxbars:i
            codepage:i ping_last:i community_balance:f retransmission:f company:s name:s language:s path:s
            data_path:s commondata_path:s
        """,
        "AccountInfo": """
            login:i trade_mode:i leverage:i limit_orders:i margin_so_mode:i trade_allowed:b trade_expert:b
            margin_mode:i currency_digits:i fifo_close:b balance:f credit:f profit:f equity:f margin:f margin_free:f
            margin_level:f margin_so_call:f margin_so_so:f margin_initial:f margin_maintenance:f assets:f
            liabilities:f commission_blocked:f name:s server:s currency:s company:s
        """,
        "BookInfo": """
            type:i price:f volume:i volume_dbl:f
        """,
    }.items()
}
"""The fields of each struct type in order, with their kinds: i integer, f float, s text, b bool, r the request."""


def frame(text: str) -> bytes:
    """Return a frame around JSON text."""
    body = text.encode()
    return HEAD.pack(len(body)) + body


def request_frame(method: str, arguments: tuple[Any, ...]) -> bytes:
    """Return a request."""
    return frame(json.dumps([COMMANDS[method], method, *arguments]))


def reply_frame(command: int, code: int, text: str, result: str) -> bytes:
    """Return a reply; ``result`` is JSON text."""
    return frame(f"[{command},{code},{json.dumps(text)},{result}]")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port".

    Raises:
        ValueError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"expected {ADDRESS_VARIABLE} as host:port, got {address!r}")
    return host.strip("[]"), int(port)
