"""Saying something on NATS and knowing that JetStream keeps it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from streamapp.errors import ConfigurationError, Transient, Unusable
from streamapp.nats.connection import ConnectionState, connect
from streamapp.settings import Settings

logger = logging.getLogger(__name__)

RETRY_S = 2.0
_TOO_LARGE = 10054
"""JetStream's code for a message beyond the stream's max_msg_size."""


class Outlet:
    """A connection for publishing, made in the background and kept for ever; run :meth:`keep` as a task."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.state = ConnectionState()
        self._settings = settings
        self._name = name
        self._client: Client | None = None
        self._trouble: str | None = "NATS: connecting"

    @property
    def reasons(self) -> list[str]:
        """What is wrong with the connection, for ``/health``; empty when nothing is."""
        return self.state.reasons if self._trouble is None else [self._trouble]

    async def keep(self) -> None:
        """Connect, trying for as long as it takes; afterwards the client comes back by itself."""
        while self._client is None:
            try:
                self._client = await connect(self._settings, self._name, on_state=self._note)
                self._trouble = None
            except (Transient, ConfigurationError) as error:
                if self._trouble != str(error):
                    logger.warning("%s", error)
                self._trouble = str(error)
                await asyncio.sleep(RETRY_S)

    def _note(self, state: ConnectionState) -> None:
        self.state = state

    async def close(self) -> None:
        """Close the connection; what was not acknowledged is the caller's to say again."""
        if self._client is not None:
            await self._client.close()

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Return when JetStream has stored the message, or had it already by its ``Nats-Msg-Id``.

        Raises:
            Unusable: It will never be stored (too large, no valid subject): ``too_long`` or ``bad_subject``.
            Transient: Not stored as far as we know; say it again with the same id.
        """
        if self._client is None:
            raise Transient(self._trouble or "NATS: connecting")
        try:
            timeout_s = self._settings.nats.publish_timeout_s
            await self._client.jetstream().publish(subject, payload, timeout=timeout_s, headers=dict(headers))
        except nats.errors.MaxPayloadError:
            raise Unusable("too_long", f"NATS takes {self._client.max_payload} bytes, got {len(payload)}") from None
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
