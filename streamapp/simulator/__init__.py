"""A simulated MetaTrader 5: a market server, and a module that behaves like ``MetaTrader5``.

Start the market with ``python -m streamapp.simulator`` and, in a bot, write
``import streamapp.simulator.metatrader5 as mt5`` in place of ``import MetaTrader5 as mt5``. Needs nothing but the
standard library (and numpy, for ``copy_rates_*`` and ``copy_ticks_*`` only).

The server is a process of its own and survives its clients, as a broker does: what a killed bot had sent stays sent.
"""

from __future__ import annotations
