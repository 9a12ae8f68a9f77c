"""nats-py's client, made to survive what a NATS server lets anybody publish.

The server stores subjects of any bytes but spaces, and headers of any bytes. Of these, nats-py 2.16 drops the
connection on a subject with a form feed or vertical tab, stops reading for good on one that is not UTF-8, and takes a
message with a header ``Status`` for the server's own "no messages". Such a message stays in its stream and is
redelivered after every reconnect, so any publisher could stop a consumer for ever (tests/nats/test_client.py publishes
them).
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error
from nats.protocol import parser

from streamapp.errors import ConfigurationError
from streamapp.nats.identity import Identity
from streamapp.settings import NatsSettings
from streamapp.subjects import MESSAGE_ID_HEADER, ORIGIN_HEADER

logger = logging.getLogger(__name__)

KEPT_HEADERS = (ORIGIN_HEADER, "traceparent", MESSAGE_ID_HEADER)
"""The headers of a stream's message that anybody here reads."""

NO_TLS = "expected a server that asks for TLS, got one that does not, and told it nothing"

_KEPT = {name.lower().encode(): name.encode() for name in KEPT_HEADERS}
_ACK_PREFIX = b"$JS.ACK."
"""How the reply subject of every message from a stream begins, and of nothing else."""
# The protocol's separators are space and tab; nats-py's \s takes form feed and vertical tab for separators as well.
_MESSAGE = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?([0-9]+)\r\n")
_MESSAGE_WITH_HEADERS = re.compile(
    rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?([0-9]+)[ \t]+([0-9]+)\r\n"
)


class TolerantClient(Client):
    """A client whose reading nobody's message can stop, and who says nothing in the clear that was meant for TLS.

    Subjects of ours are written and read without ``nats.subject_prefix``: it is put before and taken off here, and
    nobody else has to know that there is one.

    Args:
        identity: Who we are.
    """

    def __init__(self, identity: Identity | None = None) -> None:
        parser.MSG_RE = _MESSAGE
        parser.HMSG_RE = _MESSAGE_WITH_HEADERS
        super().__init__()
        self._identity = identity or Identity(NatsSettings())
        self._placed = self._identity.settings.subject
        self._prefix = self._placed("").encode()

    def _connect_command(self) -> bytes:
        """Return our first words to a server, among them who we are.

        nats-py takes the server's word for whether TLS is wanted, also where the URL begins with ``tls://``: whoever
        answers in its place would be told user and password.
        """
        settings = self._identity.settings
        if settings.demands_tls and not settings.tls_first and not self._server_info.get("tls_required"):
            raise Error(NO_TLS)
        try:
            self._public_nkey = self._identity.public_nkey()
            command: bytes = super()._connect_command()
        except ConfigurationError as error:  # any other error than its own would end nats-py's reconnecting
            raise Error(str(error)) from None
        return command

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """As nats-py's; every request and every word to a stream comes this way too."""
        await super().publish(self._placed(subject), payload, reply, headers)

    async def subscribe(self, subject: str, *args: Any, **options: Any) -> Subscription:
        """As nats-py's."""
        return await super().subscribe(self._placed(subject), *args, **options)

    async def request(self, *args: Any, **options: Any) -> Msg:
        """As nats-py's, and no cancellation is lost in it.

        The ``wait_for`` of Python 3.11, in which nats-py waits, forgets one that comes together with the answer: who
        asks again and again would never end, and whoever waits for that end neither.
        """
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await super().request(*args, **options)
        finally:
            if task.cancelling() > before:
                raise asyncio.CancelledError

    async def _process_err(self, err_msg: str) -> None:
        """Connect again after whatever a server says before it ends a connection.

        nats-py closes for good at an error that it does not know, such as a token that has expired: a new one in its
        file would never be shown.
        """
        if not self.is_connected or "permissions violation" in err_msg.lower():
            await super()._process_err(err_msg)
            return
        said = err_msg.strip("'")
        error = Error(f"nats: {said}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if reply.startswith(_ACK_PREFIX) and headers:
            headers = kept_headers(headers)
        try:
            ours = readable(subject).removeprefix(self._prefix)
            await super()._process_msg(sid, ours, readable(reply), data, headers)
        except (UnicodeError, LookupError, ValueError) as error:
            # A request or plain message: whoever sent it gets no answer, and the connection goes on.
            logger.warning("dropped a message on %s that can't be read: %r", readable(subject)[:200], error)


def readable(subject: bytes) -> bytes:
    r"""Return ``subject`` itself if it is UTF-8, otherwise with ``\xNN`` for the bytes that are not."""
    try:
        subject.decode()
    except UnicodeDecodeError:
        return subject.decode("utf-8", "backslashreplace").encode()
    return subject


def kept_headers(block: bytes) -> bytes:
    """Return the header block with nothing but :data:`KEPT_HEADERS` in visible ASCII; empty without any.

    Of a header that is there twice the first counts.
    """
    kept: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        ours, value = _KEPT.get(name.strip().lower()), value.strip()
        if ours and ours not in kept and all(0x20 <= byte < 0x7F for byte in value):
            kept[ours] = value
    if not kept:
        return b""
    return b"NATS/1.0\r\n" + b"".join(b"%b: %b\r\n" % item for item in kept.items()) + b"\r\n"
