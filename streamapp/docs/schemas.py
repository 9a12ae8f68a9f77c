"""docs/schemas: a JSON Schema file for each message, for validators and generators of code."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from streamapp.docs.catalogue import models


def name_of(model: type[BaseModel]) -> str:
    """Return the schema's name on the wire, or the class's where it has none."""
    field = model.model_fields.get("schema_")
    return str(field.default) if field is not None else model.__name__


def file_of(model: type[BaseModel]) -> str:
    """Return the schema's file in docs/schemas: order-1.json for order/1, submit-request.json for SubmitRequest."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name_of(model))
    return f"{words.lower().replace('/', '-')}.json"


def files() -> dict[str, str]:
    """Return the content of every schema file by its path below docs/."""
    return {f"schemas/{file_of(model)}": _document(model) for model in models()}


def _document(model: type[BaseModel]) -> str:
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= model.model_json_schema(by_alias=True, mode="validation") | {"title": name_of(model)}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
