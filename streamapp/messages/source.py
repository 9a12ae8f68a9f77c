"""Where signals come from over HTTP: how a sender spells them, as a mapping file says it, and the signal that it means.

A mapping only names things. What a value means is read by :mod:`streamapp.messages.dialect`, here before the signal is
sent and at the desk again: what would be refused there for its form is refused here, and nothing is sent.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from streamapp.errors import ConfigurationError, Unusable
from streamapp.messages.dialect import is_blank, read_signal, renamed, translated, with_text_ids
from streamapp.messages.envelope import REPEATED
from streamapp.messages.signal import NAMES, AnySignal, is_split, no_signal_id, route_of, signal_id_of
from streamapp.settings import ExecutionSettings, Section, folded
from streamapp.tokens import SOURCE_NAME

SHIPPED = Path(__file__).parent / "mappings"
OTHERS = "*"
"""In ``value_names``: every word that is not named."""
_DIGEST_LETTERS = 32
"""128 bits of SHA-256: no two alerts have the same by chance."""
_MAPPED = tuple(name for name in NAMES if name not in {"status", "metadata"})
"""Whose token it is says that it is approved; what is kept beside it is listed."""
_Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class SourceMapping(Section):
    """A mapping file. A path is a field's name in the body; with dots between them, of fields within fields.

    Attributes:
        secret: Path of a token, for senders that can set no header.
        field_names: Our field = path; of several paths the values that are there, with ``/`` between them.
        value_names: By field of ours: their word = ours, without regard to case; "" for "not said", ``*`` for every
            other word. Symbols and accounts have names as well.
        defaults: Our field = its value where nothing is said.
        only: Path = the one word that may stand there.
        metadata: Paths that are kept with the signal, as they came.
    """

    secret: str | None = None
    field_names: dict[str, _Paths]
    value_names: dict[str, dict[str, str]] = Field(default_factory=dict)
    defaults: dict[str, str | int | Decimal] = Field(default_factory=dict)
    only: dict[str, str] = Field(default_factory=dict)
    metadata: tuple[str, ...] = ()

    @field_validator("field_names", "value_names", "defaults")
    @classmethod
    def _of_our_fields(cls, table: dict[str, Any]) -> dict[str, Any]:
        if strange := [name for name in table if name not in _MAPPED]:
            raise ValueError(f"expected fields of {', '.join(_MAPPED)}, got {strange[0]!r:.80}")
        return table

    @field_validator("value_names")
    @classmethod
    def _in_lower_case(cls, names: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        return {field: folded(words) for field, words in names.items()}

    @model_validator(mode="after")
    def _can_be_used(self) -> SourceMapping:
        if not {"signal_id", "approved_at"} & self.field_names.keys():
            raise ValueError("field_names: expected signal_id or approved_at: an alert sent twice must be known")
        if {"signal_id", "approved_at"} & self.defaults.keys():
            raise ValueError("defaults: expected neither signal_id nor approved_at, which tell one alert from another")
        if "symbol" not in {*self.field_names, *self.defaults}:
            raise ValueError("field_names: expected symbol, got none")
        for path in self.paths | ({self.secret} - {None}):
            if not path or not all(path.split(".")):
                raise ValueError(f"expected names with dots between them, got {path!r:.80}")
        if self.secret in self.paths:
            raise ValueError(f"secret: expected a field of its own, got {self.secret!r:.80}, which is sent on")
        return self

    @property
    def paths(self) -> frozenset[str]:
        """All that is read, but the secret."""
        named = (path for paths in self.field_names.values() for path in paths)
        return frozenset((*named, *self.only, *self.metadata))


@dataclass(frozen=True)
class SourceSignal:
    """A signal as a source means it.

    Attributes:
        fields: Its fields under our own names, their values as they came.
        is_split: Routing gives it to several accounts.
    """

    fields: dict[str, Any]
    is_split: bool


@dataclass(frozen=True)
class Source:
    """A source of signals; ``execution`` is how the desk reads what is sent on."""

    name: str
    mapping: SourceMapping
    execution: ExecutionSettings

    def secret_in(self, body: Mapping[str, Any]) -> str | None:
        """Return the token that a body shows, None if it shows none."""
        value = None if self.mapping.secret is None else _at(body, self.mapping.secret)
        return value if isinstance(value, str) and value else None

    def signal(self, body: Mapping[str, Any], sender: str) -> SourceSignal:
        """Return the signal of a body, as :func:`streamapp.messages.envelope.json_object` reads it; without its secret.

        Its ``signal_id`` begins with the source's name. Behind that is the sender's own id; without one, a digest of
        all that the body says, with the sender's time in it: the same body is the same signal, another one another.

        Args:
            body: What came.
            sender: Whose token it came with; kept in its metadata.

        Raises:
            Unusable: ``bad_field`` or ``no_signal_id``, naming the field and what was expected; never the secret.
        """
        if self.mapping.secret is not None:
            body = _without(body, self.mapping.secret)
        self._require_read(body)
        named = self._named(body)
        named["signal_id"] = self._signal_id(named, body)
        kept = {path: value for path in self.mapping.metadata if (value := _at(body, path)) is not None}
        named["metadata"] = {"source": self.name, "sender": sender, "fields": json.loads(_json(kept))}
        named["status"] = "approved"
        try:
            signal = self._read(with_text_ids(named))
        except Unusable as error:
            raise Unusable(error.reason, self._placed(error.detail)) from None
        if not self._is_sent_as(signal, named):
            raise Unusable(
                "bad_field", "execution.field_names has one name for several fields: this signal can't be said with it"
            )
        route = {} if "account" in named else route_of(signal.strategy, signal.symbol, self.execution.routing)
        return SourceSignal(named, is_split(route))

    def _read(self, named: dict[str, Any]) -> AnySignal:
        # Where no account is said, routing says it later; any name lets the rest be read.
        return read_signal({"account": "-", **translated(named, self.execution)})

    def _is_sent_as(self, signal: AnySignal, named: Mapping[str, Any]) -> bool:
        """Return whether the desk reads the signal itself when the fields go out under the settings' names for them."""
        sent = {self.execution.field_names.get(name, name): value for name, value in named.items()}
        try:
            return self._read(renamed(sent, self.execution)) == signal
        except Unusable:
            return False

    def _placed(self, detail: str) -> str:
        """Return what is wrong with a field of ours, and where in the body it comes from."""
        paths = self.mapping.field_names.get(detail.partition(":")[0], ())
        return f"{detail} (in the body: {', '.join(paths)})" if paths else detail

    def _require_read(self, body: Mapping[str, Any], within: str = "") -> None:
        """Return if each field that says something is read: what is asked for is never dropped unsaid."""
        paths = self.mapping.paths
        for name, value in body.items():
            path = f"{within}{name}"
            if value is REPEATED:
                raise Unusable("bad_field", f"{path:.80}: expected once, it is given more than once")
            if "." not in name and path in paths:
                continue
            if isinstance(value, dict) and "." not in name and any(each.startswith(f"{path}.") for each in paths):
                self._require_read(value, f"{path}.")
            elif not is_blank(value) and value is not False:
                raise Unusable(
                    "bad_field",
                    f"{path:.80}: not read by the source {self.name}. Leave it out, or name it in the mapping file",
                )
        for path, word in self.mapping.only.items() if not within else ():
            if not is_blank(value := _at(body, path)) and str(value).casefold() != word.casefold():
                raise Unusable("bad_field", f"{path}: expected {word}, got {value!s:.40}")

    def _named(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that have a value, in our names and the mapping's words."""
        said = {name: self._value(name, body, paths) for name, paths in self.mapping.field_names.items()}
        named = {name: value for name, value in said.items() if not is_blank(value)}
        return {**self.mapping.defaults, **named}

    def _value(self, name: str, body: Mapping[str, Any], paths: Iterable[str]) -> Any:
        said = {path: value for path in paths if (value := _at(body, path)) is not None}
        found = {path: value for path, value in said.items() if not is_blank(value)}
        if not found:
            # As everywhere: an empty account is no name, and not one that routing may choose.
            if name == "account" and said:
                raise Unusable("bad_field", f"{', '.join(said)}: expected an account, got an empty text")
            return None
        for path, value in found.items():
            if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
                raise Unusable("bad_field", f"{path}: expected a text or a number, got a {type(value).__name__}")
        value = (
            next(iter(found.values())) if len(found) == 1 else "/".join(str(each).strip() for each in found.values())
        )
        words = self.mapping.value_names.get(name, {})
        return words.get(str(value).strip().casefold(), words.get(OTHERS, value))

    def _signal_id(self, named: Mapping[str, Any], body: Mapping[str, Any]) -> str:
        if (given := named.get("signal_id")) is None:
            if "approved_at" not in named:
                at = {
                    name: "/".join(self.mapping.field_names.get(name, ("-",))) for name in ("signal_id", "approved_at")
                }
                raise Unusable(
                    "no_signal_id",
                    f"expected an id in the field {at['signal_id']}, or the sender's time in {at['approved_at']}: "
                    "without either, the same alert sent twice would be two orders",
                )
            given = hashlib.sha256(_json(body).encode()).hexdigest()[:_DIGEST_LETTERS]
        signal_id = {"signal_id": f"{self.name}:{given}"}
        if signal_id_of(signal_id) is None:
            raise no_signal_id(signal_id)
        return signal_id["signal_id"]


def load_sources(folder: Path | None, execution: ExecutionSettings) -> dict[str, Source]:
    """Return the sources by name: those that we ship, and those of a folder, which go before ours of the same name.

    Raises:
        ConfigurationError: The folder or a file can't be used; the sentence has the file, and the line or the field.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(
            f"web.sources: expected a folder with mapping files, got {folder}. Make it or unset it"
        )
    files = [*sorted(SHIPPED.glob("*.toml")), *(() if folder is None else sorted(folder.glob("*.toml")))]
    return {file.stem: Source(file.stem, _mapping(file), execution) for file in files}


def _mapping(file: Path) -> SourceMapping:
    what = f"signal source {file}"
    if not SOURCE_NAME.fullmatch(file.stem):
        raise ConfigurationError(f"{what}: expected a name of a-z, 0-9, _ and -, 32 at most, before .toml. Rename it")
    try:
        return SourceMapping.model_validate(tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place, text = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        text = "there is no such setting" if first["type"] == "extra_forbidden" else text
        raise ConfigurationError(f"{what}: {f'{place}: {text}'.removeprefix(': ')}. See docs/webhook.md") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{what}: {error}. See docs/webhook.md") from None


def _json(value: Mapping[str, Any]) -> str:
    """Return what came as text, the same for the same fields in any order; a Decimal as it is written, if as text."""
    try:
        return json.dumps(value, sort_keys=True, default=_written)
    except RecursionError:
        raise Unusable("bad_field", "expected fields without deep nesting") from None


def _written(value: object) -> str:
    if value is REPEATED:
        raise Unusable("bad_field", "expected each field once, one within another is given more than once")
    return str(value)


def _at(body: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path, None if nothing does."""
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _without(body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a body without what stands at a path, and without the objects that held nothing else."""
    name, _, rest = path.partition(".")
    if not rest:
        return {key: value for key, value in body.items() if key != name}
    if not isinstance(inner := body.get(name), Mapping):
        return dict(body)
    left = _without(inner, rest)
    return {**body, name: left} if left else _without(body, name)
