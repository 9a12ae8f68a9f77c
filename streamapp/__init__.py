"""Order execution between a risk engine and a MetaTrader 5 broker."""
