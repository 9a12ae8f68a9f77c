"""Publishing on NATS, and knowing that JetStream has stored it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from streamapp import subjects
from streamapp.errors import Transient, Unusable

_TOO_LARGE = 10054
"""JetStream's code for a message beyond the stream's max_msg_size."""


class JetStreamOutlet:
    """Publishes through a connection that somebody else makes and keeps.

    Args:
        client: Returns the connected client, None before the first connection.
        timeout_s: How long to wait for JetStream's acknowledgement.
    """

    def __init__(self, client: Callable[[], Client | None], timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Return when JetStream has stored the message, or had it already by its ``Nats-Msg-Id``.

        Raises:
            Unusable: It will never be stored (too large, no valid subject): ``too_long`` or ``bad_subject``.
            Transient: Not stored as far as we know; say it again with the same id.
        """
        client = self._client()
        if client is None:
            raise Transient("NATS: connecting")
        try:
            await client.jetstream().publish(subject, payload, timeout=self._timeout_s, headers=dict(headers))
        except nats.errors.MaxPayloadError:
            raise Unusable("too_long", f"NATS takes {client.max_payload} bytes, got {len(payload)}") from None
        except nats.errors.BadSubjectError:
            raise Unusable("bad_subject", f"NATS takes no subject {subject!r}") from None
        except NoStreamResponseError:
            raise Transient(
                f"NATS: no stream keeps {subject}. Run `streamapp init`, unless a leader is elected"
            ) from None
        except APIError as error:
            if error.err_code == _TOO_LARGE:
                raise Unusable("too_long", f"JetStream: {error.description}") from None
            raise Transient(f"JetStream: {error.description} ({error.err_code})") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Transient(f"NATS: {str(error) or type(error).__name__}") from error


async def publish_signal(client: Client, payload: bytes, *, symbol: str, message_id: str | None) -> int:
    """Publish a signal as an upstream should, by JetStream and with a message id; return its stream sequence.

    Raises:
        Transient: nobody acknowledged it; it may be sent again with the same id.
    """
    headers = {subjects.MESSAGE_ID_HEADER: message_id} if message_id else None
    try:
        ack = await client.jetstream().publish(subjects.signal_approved(symbol), payload, headers=headers)
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise Transient(
            f"NATS did not acknowledge the signal ({error}). Is the stream there? Run `streamapp init`, send again."
        ) from error
    return ack.seq


def advised_message_id(account: str | None, signal_id: str, payload: bytes) -> str:
    """Return the Nats-Msg-Id that upstreams are advised to use: a bare signal id would hide a conflict from us."""
    return f"signal:{account or ''}:{signal_id}:{hashlib.sha256(payload).hexdigest()[:16]}"
