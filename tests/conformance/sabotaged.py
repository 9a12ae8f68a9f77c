"""The simulated module with one thing wrong, named by an environment variable: what the suite must notice."""

import os
import threading
from typing import Any

from streamapp.simulator import metatrader5 as whole
from streamapp.simulator.module.structs import Struct
from streamapp.simulator.wire import FIELDS

WRONG = os.environ.get("SABOTAGE", "")
globals().update({name: getattr(whole, name) for name in dir(whole) if not name.startswith("__")})
__version__ = whole.__version__


class ShortPosition(Struct):
    """A position without its identifier."""

    __match_args__ = tuple(name for name, _ in FIELDS["TradePosition"] if name != "identifier")
    n_fields = n_sequence_fields = len(__match_args__)


if WRONG == "constant":
    ORDER_FILLING_IOC = 2
elif WRONG == "missing constant":
    del globals()["POSITION_TYPE_SELL"]
elif WRONG == "struct":
    TradePosition = ShortPosition
elif WRONG == "function":
    del globals()["order_calc_margin"]


def _faked(row: Any, **values: Any) -> Any:
    return type(row)(values.get(name, value) for name, value in row._asdict().items())


def last_error() -> tuple[int, str]:
    code, text = whole.last_error()
    if WRONG == "error":
        return code, text.replace('Invalid "volume" argument', "Invalid volume argument")
    return code, text


def order_send(*args: Any, **kwargs: Any) -> Any:
    request = args[0] if args and isinstance(args[0], dict) else kwargs
    if WRONG == "int volume" and isinstance(request.get("volume"), int):
        request = {**request, "volume": float(request["volume"])}
        return whole.order_send(request)
    if WRONG == "no closing" and request.get("position"):
        request = {**request, "action": 0}
        return whole.order_send(request)
    if WRONG == "hang" and request.get("action") == whole.TRADE_ACTION_SLTP:
        threading.Event().wait()
    result = whole.order_send(*args, **kwargs)
    if WRONG == "wrong code" and result is not None and result.retcode == whole.TRADE_RETCODE_INVALID_VOLUME:
        return _faked(result, retcode=whole.TRADE_RETCODE_REJECT)
    return result


def account_info() -> Any:
    info = whole.account_info()
    if info is None:
        return None
    if WRONG == "real account":
        return _faked(info, trade_mode=whole.ACCOUNT_TRADE_MODE_REAL)
    if WRONG == "becomes real" and whole.history_deals_total(1000, 2**31 - 1) > 1:
        return _faked(info, trade_mode=whole.ACCOUNT_TRADE_MODE_REAL)
    return info


def symbol_info_tick(*args: Any, **kwargs: Any) -> Any:
    tick = whole.symbol_info_tick(*args, **kwargs)
    return _faked(tick, volume_real=0) if WRONG == "type" and tick is not None else tick
