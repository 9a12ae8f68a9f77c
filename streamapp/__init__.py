"""Order execution between a risk engine and a MetaTrader 5 broker."""

__version__ = "0.1.0"
