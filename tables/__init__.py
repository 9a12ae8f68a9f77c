"""The rows of the desk: one module a family, on top of :mod:`tables.store`."""
