"""What goes over the wire, one module a schema.

Frozen pydantic models, JSON, decimals as strings, UTC with microseconds.
"""
