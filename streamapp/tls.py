"""TLS contexts whose files are read anew for each connection, and what a failed handshake means in words."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from streamapp.errors import ConfigurationError
from streamapp.settings import SecuredSection, secret

logger = logging.getLogger(__name__)


class RenewedContext(ssl.SSLContext):
    """A context for any asyncio client; each connection is made with what its files hold then.

    So a certificate, a key or a CA that was replaced needs no restart: the next (re)connection uses it. While the files
    can't be used (half of a new pair is there) connections go on with what was there before, and the log says so.

    Args:
        server: Where the certificates are.
        section: What these settings are called, for what is said about them.

    Raises:
        ConfigurationError: They can't be used now; names the setting and what to do.
    """

    def __new__(cls, server: SecuredSection, section: str) -> Self:  # noqa: ARG004, D102
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, server: SecuredSection, section: str) -> None:
        self._server = server
        self._section = section
        self._usable = context_of(server, section)
        for path in _readable_by_all(server):
            logger.warning("%s: %s can be read by every user of this machine: chmod 600", section, path)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio, uvloop and every client on them come through here."""
        try:
            self._usable = context_of(self._server, self._section)
        except ConfigurationError as error:
            logger.warning("%s. Going on with what was read before", error)
        return self._usable.wrap_bio(*args, **options)


def context_of(server: SecuredSection, section: str) -> ssl.SSLContext:
    """Return a context of what the files hold now: the server's name and certificate are always verified.

    Raises:
        ConfigurationError: as of :class:`RenewedContext`.
    """
    try:
        context = ssl.create_default_context(cafile=server.ca_file)
    except (OSError, ValueError) as error:
        raise _unusable(f"{section}.ca_file {server.ca_file}", error, "the CA's certificate in PEM") from None
    if server.certificate_file is not None:
        # Without a password here OpenSSL would ask for one at the terminal, and wait for ever.
        password = secret(server.key_password_file) or ""
        what = f"{section}.certificate_file {server.certificate_file} and key_file {server.key_file}"
        try:
            context.load_cert_chain(server.certificate_file, server.key_file, password)
        except (OSError, ValueError) as error:
            raise _unusable(what, error, _pair(error, section)) from None
    return context


def _pair(error: Exception, section: str) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "a key that belongs to the certificate"
    return f"a certificate and its key in PEM, and the key's password in {section}.key_password_file if it has one"


def _unusable(what: str, error: Exception, expected: str) -> ConfigurationError:
    # The text of an SSLError names a place in OpenSSL's source; its reason is a word that can be looked up.
    said = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return ConfigurationError(f"{what}: expected {expected}, got: {said or type(error).__name__}")


def _readable_by_all(server: SecuredSection) -> Iterator[Path]:
    """Yield the files that hold a secret and are open to everybody; Windows says nothing of it in these bits."""
    if os.name == "posix":
        for path in (server.key_file, server.key_password_file):
            if path is not None and path.stat().st_mode & stat.S_IROTH:
                yield path


_VERIFICATION = {
    9: "the server's certificate is not valid yet: compare the clocks of both machines",
    10: "the server's certificate has expired: renew it on the server",
    62: "the server's certificate is for another name: reach it by a name that is in it",
    64: "the server's certificate is for another address: reach it by a name or address that is in it",
}
"""By OpenSSL's verify codes (X509_V_ERR_...). Every other one says that no CA we trust stands behind it."""
_ALERTS = {
    "CERTIFICATE_REQUIRED": "the server asks for a certificate of ours: set {0}.certificate_file and {0}.key_file",
    "UNKNOWN_CA": "the server does not know the CA of our certificate: check {0}.certificate_file",
    "CERTIFICATE_EXPIRED": "the server says that our certificate has expired: renew {0}.certificate_file",
    "BAD_CERTIFICATE": "the server does not take our certificate: check {0}.certificate_file",
    "CERTIFICATE_UNKNOWN": "the server does not take our certificate: check {0}.certificate_file",
    "HANDSHAKE_FAILURE": "the server ended the handshake; it may ask for a certificate of ours: set "
    "{0}.certificate_file and {0}.key_file",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS: check the address and port",
    "RECORD_LAYER_FAILURE": "what answers there does not speak TLS: check the address and port",
}
"""By the ends of OpenSSL's words for what the other side said."""


def fault(error: BaseException, section: str) -> str | None:
    """Return in words what a TLS handshake failed at, or None if it was not TLS.

    Args:
        error: Whatever a client raised; its causes are looked at as well.
        section: What the settings of this server are called.
    """
    seen: BaseException | None = error
    while seen is not None:
        # aiohttp's errors are SSLErrors as well, without what OpenSSL said: that is in their cause.
        if (code := getattr(seen, "verify_code", 0)) != 0:
            unknown = f"no CA of {section}.ca_file stands behind the server's certificate: name the CA that signed it"
            return _VERIFICATION.get(code, unknown)
        if isinstance(seen, ssl.SSLEOFError):
            return None  # it hung up, which says nothing: a server that stops does so as well
        if isinstance(seen, ssl.SSLError) and (said := getattr(seen, "reason", None)):
            words = (text.format(section) for end, text in _ALERTS.items() if said.endswith(end))
            return next(words, f"TLS failed with {said}")
        seen = seen.__cause__ or seen.__context__
    return None
