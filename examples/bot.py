"""A bot as it is written for the MetaTrader5 package: one position, with levels, closed again."""

import streamapp.simulator.metatrader5 as mt5  # on Windows, beside MetaTrader 5: import MetaTrader5 as mt5

SYMBOL, MAGIC = "EURUSD", 42


def send(**request):
    result = mt5.order_send({"action": mt5.TRADE_ACTION_DEAL, "symbol": SYMBOL, "magic": MAGIC,
                             "type_filling": mt5.ORDER_FILLING_IOC, **request})  # fmt: skip
    if result is None:  # nothing is known: it may have been executed. Look before you send again
        raise SystemExit(f"no answer: {mt5.last_error()}")
    print(result.retcode, result.comment, result.volume, result.price)
    if result.retcode != mt5.TRADE_RETCODE_DONE:
        raise SystemExit(1)
    return result


if not mt5.initialize(login=50000001):
    raise SystemExit(f"not connected: {mt5.last_error()}")
tick = mt5.symbol_info_tick(SYMBOL)
opened = send(
    volume=0.1, type=mt5.ORDER_TYPE_BUY, price=tick.ask, sl=round(tick.bid - 0.0050, 5), tp=round(tick.ask + 0.0050, 5)
)
[position] = [each for each in mt5.positions_get(symbol=SYMBOL) if each.ticket == opened.order]
print("open:", position.ticket, position.volume, position.price_open, position.sl, position.tp)
send(volume=position.volume, type=mt5.ORDER_TYPE_SELL, position=position.ticket, price=mt5.symbol_info_tick(SYMBOL).bid)
assert not [each for each in mt5.positions_get(symbol=SYMBOL) if each.ticket == opened.order]
mt5.shutdown()
