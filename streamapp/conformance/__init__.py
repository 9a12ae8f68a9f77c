"""Whether a module is MetaTrader5: one suite for the real one and for any that stands in for it.

It runs against a demo account on Windows or against the simulated market, in a worker process that can be ended from
outside, and writes a report. Two reports can be compared: what must be equal, what must have the same form, and what
was measured. Needs the standard library and pydantic, and numpy for the calls that take or give arrays.
"""
