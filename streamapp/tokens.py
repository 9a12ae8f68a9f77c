"""The tokens of the web API: who may ask for what, kept in a file that has hashes and no secret.

One token a line, ``NAME ROLE MADE_AT sha256:SALT:HASH``; blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from streamapp.errors import ConfigurationError, Definite
from streamapp.processes.locks import FileLock

logger = logging.getLogger(__name__)

TokenRole = Literal["read", "trade", "admin"]
ROLES: tuple[TokenRole, ...] = get_args(TokenRole)
"""Each may do what those before it may."""
_SENDER = "signals:"
ROLES_IN_WORDS = f"{', '.join(ROLES)} or {_SENDER}SOURCE"

SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HASH = re.compile(r"sha256:([0-9a-f]{32}):([0-9a-f]{64})")
_HEADER = "# Tokens of streamapp's web API: NAME ROLE MADE_AT sha256:SALT:HASH. Change them by `streamapp token`.\n"
_SECRET_BYTES = 32
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def sender_of(source: str) -> str:
    """Return the role that may send signals of a source over HTTP, and nothing else: not even read."""
    return f"{_SENDER}{source}"


def is_role(role: str) -> bool:
    """Return whether it is one of :data:`ROLES`, or a sender's."""
    return role in ROLES or (role.startswith(_SENDER) and SOURCE_NAME.fullmatch(role.removeprefix(_SENDER)) is not None)


def includes(role: str, needed: str) -> bool:
    """Return whether who has ``role`` may do what needs ``needed``; an admin may all, a sender what it is for."""
    if role in ROLES and needed in ROLES:
        return ROLES.index(role) >= ROLES.index(needed)
    return role in {needed, "admin"}


@dataclass(frozen=True)
class Token:
    """One token; what it is shown as has no hash in it.

    Attributes:
        role: One of :data:`ROLES`, or that of a sender of signals.
        made_at: UTC, to the second.
    """

    name: str
    role: str
    made_at: datetime
    salt: str = field(repr=False)
    digest: str = field(repr=False)

    def is_of(self, secret: str) -> bool:
        """Return whether ``secret`` is this token's, in a time that says nothing about it."""
        return hmac.compare_digest(_digest(self.salt, secret), self.digest)

    @property
    def line(self) -> str:
        """Its line in the file."""
        return f"{self.name} {self.role} {self.made_at.strftime(_TIME)} sha256:{self.salt}:{self.digest}\n"


def _digest(salt: str, secret: str) -> str:
    # One SHA-256 and no scrypt: a slow hash makes a guessed password expensive, but these secrets are 256 random bits,
    # which nobody guesses, and a slow hash over all lines would let anybody keep the event loop from its orders.
    return hashlib.sha256(f"{salt}:{secret}".encode(errors="backslashreplace")).hexdigest()


class TokensFile:
    """The file and its changes; each is written beside it and put in its place at once.

    Raises (every method):
        ConfigurationError: The file can't be read or written, or has a line that is none, by its number; its content
            never stands in the message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Token, ...]:
        """Return the tokens in the order of the file."""
        return tuple(token for _, token in self._lines() if token is not None)

    def add(self, name: str, role: str, made_at: datetime) -> str:
        """Add a token and return its secret, which is kept nowhere.

        Raises:
            Definite: The role is none; the name is none, or taken.
        """
        if not is_role(role):
            raise Definite(f"expected a role of {ROLES_IN_WORDS}, got {role!r:.80}")
        if not _NAME.fullmatch(name):
            raise Definite(f"expected a name of letters, digits and . _ @ - (64 at most), got {name!r:.80}")
        with self._changing() as lines:
            if any(token is not None and token.name == name for _, token in lines):
                raise Definite(f"{name} has a token already: revoke it first, with `streamapp token revoke {name}`")
            secret, salt = f"streamapp_{secrets.token_urlsafe(_SECRET_BYTES)}", secrets.token_hex(16)
            lines.append((Token(name, role, made_at, salt, _digest(salt, secret)).line, None))
        return secret

    def revoke(self, name: str) -> None:
        """Take a token out.

        Raises:
            Definite: There is none of this name.
        """
        with self._changing() as lines:
            kept = [line for line in lines if line[1] is None or line[1].name != name]
            if len(kept) == len(lines):
                known = ", ".join(token.name for _, token in lines if token is not None) or "none"
                raise Definite(f"expected the name of a token ({known}), got {name!r:.80}")
            lines[:] = kept

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[tuple[str, Token | None]]]:
        """Give the lines to be changed, and write them; nobody else changes them meanwhile."""
        try:
            lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))
        except OSError as error:
            raise self._unusable(error) from None
        try:
            lines: list[tuple[str, Token | None]] = self._lines() if self.path.exists() else [(_HEADER, None)]
            yield lines
            self._write("".join(line for line, _ in lines))
        finally:
            lock.release()

    def _lines(self) -> list[tuple[str, Token | None]]:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
            mode = self.path.stat().st_mode
        except OSError as error:
            raise self._unusable(error) from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"tokens file {self.path}: expected UTF-8, got other bytes") from None
        if os.name == "posix" and mode & _OTHERS_MAY_WRITE:
            raise ConfigurationError(
                f"tokens file {self.path}: expected one that only its owner may write, for whoever writes it is admin. "
                "Look who is in it (`streamapp token list`) after `chmod 600`"
            )
        lines = [(f"{line}\n", self._token(number, line)) for number, line in enumerate(text.splitlines(), start=1)]
        names = [token.name for _, token in lines if token is not None]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"tokens file {self.path}: expected each name once, got {twice[0]} twice")
        return lines

    def _token(self, number: int, line: str) -> Token | None:
        if not line.strip() or line.startswith("#"):
            return None
        try:
            name, role, made_at, hashed = line.split()
            found = _HASH.fullmatch(hashed)
            if not _NAME.fullmatch(name) or not is_role(role) or found is None:
                raise ValueError
            return Token(name, role, _time(made_at), *found.groups())
        except ValueError:
            raise ConfigurationError(
                f"tokens file {self.path}, line {number}: expected NAME ROLE MADE_AT sha256:SALT:HASH with a role of "
                f"{ROLES_IN_WORDS}. Mend or remove the line, and make a new token with `streamapp token add`"
            ) from None

    def _write(self, text: str) -> None:
        beside: str | None = None
        try:
            file, beside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # of mode 0600
            with os.fdopen(file, "wb") as written:
                written.write(text.encode())
                written.flush()
                os.fsync(written.fileno())
            Path(beside).replace(self.path)
        except OSError as error:
            if beside is not None:
                Path(beside).unlink(missing_ok=True)
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> ConfigurationError:
        hint = (
            "Make it with `streamapp token add NAME --role ROLE`"
            if isinstance(error, FileNotFoundError)
            else "It must belong to the user of the trading worker"
        )
        return ConfigurationError(f"tokens file {self.path}: {error.strerror}. {hint}")


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


class Tokens:
    """The tokens that hold now: the file is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._file = TokensFile(path)
        self._seen: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._fault: str | None = None

    def find(self, secret: str) -> Token | None:
        """Return whose secret it is, None if nobody's.

        Raises:
            ConfigurationError: The file can't be used: nobody's secret is known then, not even one that was.
        """
        if (fault := self.fault) is not None:
            raise ConfigurationError(fault)
        # Over all lines, whichever it is: how long it takes says nothing.
        found = [token for token in self._tokens if token.is_of(secret)]
        return found[0] if found else None

    @property
    def fault(self) -> str | None:
        """Why the file can't be used, None if it can."""
        if (seen := self._stamp()) != self._seen or seen is None:
            before = self._fault
            try:
                self._tokens, self._fault = self._file.read(), None
            except ConfigurationError as error:
                self._tokens, self._fault = (), str(error)
            if self._fault not in {None, before}:
                logger.error("%s. Until then nobody has a token", self._fault)
            # What could not be read is read again next time: the disk may be well again, and the file the same.
            self._seen = None if self._fault else seen
        return self._fault

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
