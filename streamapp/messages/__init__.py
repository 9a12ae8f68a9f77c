"""What goes over the wire, one module a schema: frozen pydantic models, JSON, decimals as strings, UTC with microseconds."""
