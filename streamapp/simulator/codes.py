"""Numbers that the package uses but does not name, and the words that come with return codes."""

TRADE_RETCODE_HEDGE_PROHIBITED = 10046

# Bits of symbol_info().filling_mode. Another number space than ORDER_FILLING_*.
SYMBOL_FILLING_FOK = 1
SYMBOL_FILLING_IOC = 2
SYMBOL_FILLING_BOC = 4

# Bits of symbol_info().expiration_mode, by ORDER_TIME_*.
EXPIRATION_BITS = (1, 2, 4, 8)

# Bits of symbol_info().order_mode, by ORDER_TYPE_*.
ORDER_MODE_BITS = (1, 1, 2, 2, 4, 4, 8, 8, 64)
ORDER_MODE_SL = 16
ORDER_MODE_TP = 32

RETCODE_TEXT: dict[int, str] = {
    0: "Done",
    10004: "Requote",
    10006: "Request rejected",
    10007: "Request canceled by trader",
    10008: "Order placed",
    10009: "Request executed",
    10010: "Request executed partially",
    10011: "Request processing error",
    10012: "Request canceled by timeout",
    10013: "Invalid request",
    10014: "Invalid volume",
    10015: "Invalid price",
    10016: "Invalid stops",
    10017: "Trade disabled",
    10018: "Market closed",
    10019: "No money",
    10020: "Price changed",
    10021: "Off quotes",
    10022: "Invalid expiration",
    10023: "Order changed",
    10024: "Too many requests",
    10025: "No changes",
    10026: "AutoTrading disabled by server",
    10027: "AutoTrading disabled by client",
    10028: "Request locked",
    10029: "Order or position frozen",
    10030: "Unsupported filling mode",
    10031: "No connection",
    10032: "Only real accounts allowed",
    10033: "Orders limit reached",
    10034: "Volume limit reached",
    10035: "Invalid order",
    10036: "Position doesn't exist",
    10038: "Invalid close volume",
    10039: "Close order already exists",
    10040: "Positions limit reached",
    10041: "Pending order rejected and canceled",
    10042: "Only long positions allowed",
    10043: "Only short positions allowed",
    10044: "Only position close allowed",
    10045: "Only FIFO close allowed",
    10046: "Hedge prohibited",
}

# Codes of last_error(), with the words of the original.
ERROR_TEXT: dict[int, str] = {
    1: "Success",
    -1: "Terminal: Call failed",
    -2: "Terminal: Invalid params",
    -3: "Terminal: Out of memory",
    -4: "Terminal: Not found",
    -6: "Terminal: Authorization failed",
    -7: "Terminal: Unsupported function",
    -8: "Auto-Trading using Python API disabled in Terminal",
    -10000: "IPC call failed",
    -10001: "IPC send failed",
    -10002: "IPC recv failed",
    -10003: "IPC initialize failed",
    -10004: "No IPC connection",
    -10005: "IPC timeout",
}
