"""A certificate authority of a test's own: the real ``openssl``, which names 127.0.0.1 in what it issues."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
_DATABASE = """\
[ca]
default_ca = own
[own]
new_certs_dir = {folder}
database = {folder}/index.txt
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""
_CA_EXTENSIONS = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key (PKCS 8), in PEM, and both in one file as Kafka's PEM stores want them."""

    certificate: Path
    key: Path

    @property
    def store(self) -> Path:
        path = self.certificate.with_suffix(".store.pem")
        path.write_text(self.key.read_text() + self.certificate.read_text())
        return path


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        extensions = [word for each in _CA_EXTENSIONS for word in ("-addext", each)]
        self._openssl("req", "-x509", *_new_key(self._key), "-out", self.certificate, *_subject(name), *extensions)
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(_DATABASE.format(folder=folder))

    def issue(
        self,
        name: str,
        *,
        names: str = "IP:127.0.0.1, DNS:localhost",
        expired: bool = False,
        ends: datetime | None = None,
    ) -> Pair:
        """Return a certificate of ``name`` that is good now (until ``ends``), or was until years ago.

        The same name replaces it.

        The new files take the place of the old ones as a whole, as a tool that rotates certificates does it.
        """
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.cnf"
        extensions.write_text(_EXTENSIONS.format(names=names))
        fresh_key, fresh = self._folder / f"{name}.key.new", self._folder / f"{name}.pem.new"
        self._openssl("req", *_new_key(fresh_key), "-out", request, *_subject(name))
        end = "20200102000000Z" if expired else "20990101000000Z" if ends is None else f"{ends:%Y%m%d%H%M%SZ}"
        self._openssl(
            *("ca", "-batch", "-notext", "-config", self._folder / "ca.cnf", "-cert", self.certificate),
            *("-keyfile", self._key, "-in", request, "-out", fresh, "-extfile", extensions),
            *("-startdate", "20200101000000Z", "-enddate", end),
        )
        fresh_key.replace(pair.key)
        fresh.replace(pair.certificate)
        return pair

    def lock(self, name: str, locked: str, password: str) -> None:
        """Write the key of ``name`` once more, under ``password``, as ``locked``."""
        out = self._folder / locked
        key = self._folder / f"{name}.key"
        self._openssl("pkcs8", "-topk8", "-in", key, "-out", out, "-passout", f"pass:{password}")

    def _openssl(self, *words: object) -> None:
        done = subprocess.run(["openssl", *map(str, words)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _new_key(path: Path) -> tuple[object, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _subject(name: str) -> tuple[str, str]:
    return ("-subj", f"/CN={name}")
