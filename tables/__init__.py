"""One module a table, on top of :mod:`tables.durable`."""
