"""How the trading worker is put together: one module a concern, called by :mod:`streamapp.trading` alone."""
