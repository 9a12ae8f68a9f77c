"""docs/asyncapi.json: an AsyncAPI 3.0 document of every channel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from streamapp import __version__
from streamapp.docs.catalogue import CHANNELS, Channel, models
from streamapp.docs.schemas import name_of
from streamapp.settings import KafkaSettings, NatsSettings


def document(kafka: KafkaSettings | None = None, nats: NatsSettings | None = None) -> str:
    """Return the document as JSON text, its keys in a fixed order, with addresses as these settings make them."""
    place = {"Kafka": (kafka or KafkaSettings()).prefixed, "NATS": (nats or NatsSettings()).subject}
    content: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamapp",
            "version": __version__,
            "description": "Order execution between a risk engine and a MetaTrader 5 broker.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats"},
            "kafka": {"host": "127.0.0.1:9092", "protocol": "kafka"},
        },
        "channels": {_id(channel): _channel(channel, place[channel.system]) for channel in CHANNELS},
        "operations": dict(operation for channel in CHANNELS for operation in _operations(channel)),
        "components": {"messages": {model.__name__: _message(model) for model in models()}},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _id(channel: Channel) -> str:
    return f"{channel.system.lower()}.{re.sub(r'[{}]', '', channel.address)}"


def _channel(channel: Channel, place: Callable[[str], str]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "address": place(channel.address),
        "description": channel.says,
        "servers": [{"$ref": f"#/servers/{channel.system.lower()}"}],
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in channel.models},
    }
    if names := re.findall(r"{(\w+)}", channel.address):
        said["parameters"] = {
            name: {"description": f"The {name}, each byte outside [A-Za-z0-9_-] as %XX."} for name in names
        }
    return said


def _operations(channel: Channel) -> list[tuple[str, dict[str, Any]]]:
    reference = {"$ref": f"#/channels/{_id(channel)}"}
    named = (("receive", channel.receives), ("send", channel.sends))
    return [(f"{action}.{_id(channel)}", {"action": action, "channel": reference}) for action, does in named if does]


def _message(model: type[BaseModel]) -> dict[str, Any]:
    # Every schema stands by itself: its definitions are inside it, so references must be looked up from its own root.
    place = f"#/components/messages/{model.__name__}/payload/$defs/{{model}}"
    return {
        "name": name_of(model),
        "contentType": "application/json",
        "payload": model.model_json_schema(by_alias=True, mode="validation", ref_template=place),
    }
