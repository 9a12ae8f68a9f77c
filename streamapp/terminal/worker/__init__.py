"""The worker process: it holds the MT5 module and makes its calls, one after another."""
