"""Who we are on NATS: a user with a password, an nkey or a .creds file, read anew for each connection."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.parts import pip_install
from streamapp.settings import NatsSettings, secret

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")


@dataclass(frozen=True)
class Identity:
    """What is said to a server that asks who we are.

    The files are read by us and not by nats-py, which reads a .creds file without a JWT for ever, and stands still.
    """

    settings: NatsSettings

    def options(self) -> dict[str, Any]:
        """Return the arguments of nats-py's ``connect``; what they hold is read at each connection.

        Raises:
            ConfigurationError: A file can't be used now, or a package is missing; names the setting.
        """
        settings = self.settings
        if settings.user is not None:
            self._password()
            return {"user": settings.user, "password": self._password}
        if settings.credentials_file is not None:
            self._sign("")
            return {"user_jwt_cb": self._jwt, "signature_cb": self._sign}
        if settings.nkey_file is not None:
            self._sign("")
            return {"signature_cb": self._sign}
        return {}

    def public_nkey(self) -> str | None:
        """Return the public half of the nkey; None for whoever is known by something else."""
        if self.settings.nkey_file is None:
            return None
        return str(self._key_pair().public_key.decode())

    def _password(self) -> str:
        return self.settings.password_text() or ""

    def _jwt(self) -> bytes:
        return self._found(_JWT, "a NATS user JWT").encode()

    def _sign(self, nonce: str) -> bytes:
        return base64.b64encode(self._key_pair().sign(nonce.encode()))

    def _key_pair(self) -> Any:
        settings = self.settings
        if settings.nkey_file is not None:
            what, seed = f"nats.nkey_file {settings.nkey_file}", (secret(settings.nkey_file) or "").strip()
        else:
            what, seed = f"nats.credentials_file {settings.credentials_file}", self._found(_SEED, "a user's nkey seed")
        return _key_pair_of(what, seed)

    def _found(self, pattern: re.Pattern[str], expected: str) -> str:
        path = self.settings.credentials_file
        found = pattern.search(secret(path) or "")
        if found is None:
            raise ConfigurationError(f"nats.credentials_file {path}: expected {expected} in it, got none")
        return found.group(1)


def _key_pair_of(what: str, seed: str) -> Any:
    try:
        import nkeys
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"{what}: expected the nkeys package, which signs with it, got none: {pip_install('nkeys')}"
        ) from None
    try:
        return nkeys.from_seed(bytearray(seed.encode()))
    except Exception:  # noqa: BLE001  nkeys raises its own errors, binascii's and IndexError, some with the seed in them
        raise ConfigurationError(f"{what}: expected the seed of an nkey (SU...), got something else") from None
