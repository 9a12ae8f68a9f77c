"""nkeys, and what an operator signs with them: accounts and users as JWTs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operator:
    """Whose account the users of a server belong to; ``conf`` is what the server must know."""

    account: Any
    conf: str


def nkey(kind: str) -> tuple[str, str]:
    """Return a new public key and its seed."""
    pair = _new(kind)
    return pair.public_key.decode(), bytes(pair.seed).decode()


def operator() -> Operator:
    """Return a new operator with one account."""
    own, account = _new("operator"), _new("account")
    operator_jwt = _signed(own, own, {"type": "operator", "version": 2})
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}
    account_jwt = _signed(own, account, {"type": "account", "version": 2, "limits": limits})
    public = account.public_key.decode()
    return Operator(
        account, f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload {{ {public}: {account_jwt} }}\n"
    )


def credentials(house: Operator, lives_s: float | None = None) -> str:
    """Return a .creds file of a new user of ``house``, good for so long, or for ever."""
    user = _new("user")
    claims = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    jwt = _signed(house.account, user, claims, lives_s)
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n------END USER NKEY SEED------\n"
    )


def _new(kind: str) -> Any:
    import nkeys

    prefix = getattr(nkeys, f"PREFIX_BYTE_{kind.upper()}")
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def _signed(issuer: Any, subject: Any, claims: dict[str, Any], lives_s: float | None = None) -> str:
    body = {
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "name": claims["type"],
        "sub": subject.public_key.decode(),
        "nats": claims,
    }
    if lives_s is not None:
        body["exp"] = int(time.time() + lives_s)
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    text = ".".join(_packed(json.dumps(part).encode()) for part in (head, body))
    return f"{text}.{_packed(issuer.sign(text.encode()))}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
