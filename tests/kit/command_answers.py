"""A NATS with our streams, and a stand-in for the desk that answers commands on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from streamapp import subjects
from streamapp.messages.command import CommandRequest, CommandResultMessage
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Settings

AT = datetime(2026, 11, 27, 3, tzinfo=UTC)


@asynccontextmanager
async def streams_at(address: str) -> AsyncIterator[Client]:
    """Connect to a NATS and give it our streams."""
    settings = Settings(nats=NatsSettings(url=address))
    client = await connect(settings, "test")
    try:
        await ensure(client.jetstream(), settings, create=True)
        yield client
    finally:
        with contextlib.suppress(OSError):  # a test may have ended its server
            await client.close()


@dataclass
class AnsweringDesk:
    """Hears every command that the stream takes from now on, and gives each the same results.

    Attributes:
        results: What every result of a command has, beside what the command says.
        heard: The subject, the command and its place in the stream.
    """

    client: Client
    results: tuple[dict[str, Any], ...] = ({"state": "accepted"}, {"state": "done"})
    heard: list[tuple[str, CommandRequest, int]] = field(default_factory=list)

    async def start(self) -> AnsweringDesk:
        js = self.client.jetstream()

        async def on_command(message: Any) -> None:
            command, stream_seq = CommandRequest.decode(message.data), message.metadata.sequence.stream
            self.heard.append((message.subject, command, stream_seq))
            for revision, change in enumerate(self.results, start=1):
                result = result_of(message.subject, command, stream_seq, revision=revision, **change)
                await js.publish(subjects.command_result(command.request_id), result.encode())

        await js.subscribe(
            f"{subjects.COMMANDS}.>",
            stream=subjects.EXECUTION_IN.name,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
            cb=on_command,
        )
        return self

    def of(self, request_id: str) -> list[CommandRequest]:
        return [command for _, command, _ in self.heard if command.request_id == request_id]


def result_of(subject: str, command: CommandRequest, stream_seq: int, **changes: Any) -> CommandResultMessage:
    """Return a result of ``command``; ``changes`` must say its state and revision."""
    said = command.model_dump(exclude={"values", "request_id"})
    return CommandResultMessage(
        **{
            **said,
            "request_id": command.request_id,
            "command": subjects.command_name(subject),
            "stream_seq": stream_seq,
            "at": AT,
            **changes,
        }
    )
