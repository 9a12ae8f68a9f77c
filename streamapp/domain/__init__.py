"""The rules of streamapp, pure: signals, orders, facts, status, positions, slippage, guards.

Nothing here does I/O, reads a clock, draws a random number or knows Faust; every time and limit comes as an argument.
"""
