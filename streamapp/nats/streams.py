"""The streams, mirror's consumers and its lease: created by ``streamapp init``, verified by everybody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import nats.errors
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from streamapp import subjects
from streamapp.errors import ConfigurationError, Transient
from streamapp.settings import Settings, StreamLimits
from streamapp.subjects import StreamSpec

ACK_WAIT_S = 30.0
"""An unacknowledged message is redelivered after so long. Longer than Kafka may take for a group, so that none is
redelivered while it is written."""
MAX_ACK_PENDING = 1000
LEASE_BYTES = 1024**2
_OURS = StreamLimits()
_OVERLAP = 10065
"""JetStream's number for subjects that overlap with those of an existing stream."""

Outcome = Literal["present", "created", "updated", "missing", "different"]


@dataclass(frozen=True)
class Step:
    """One thing that must be there: what was found, or done about it. ``detail`` says what differs."""

    what: str
    outcome: Outcome
    detail: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether it is there now, as it should be."""
        return self.outcome in {"present", "created", "updated"}


async def ensure(js: JetStreamContext, settings: Settings, create: bool) -> tuple[Step, ...]:
    """Create or mend the streams, mirror's consumers and its lease bucket, or say what is missing; may be repeated.

    With ``create`` False nothing is changed.
    A limit that somebody made larger is left as it is, and so is everything that we have no opinion about.

    Raises:
        ConfigurationError: The server refuses something, with its reason.
        Transient: JetStream did not answer: it is electing a leader, or this user may not ask.
    """
    wanted = [_stream_config(spec, settings) for spec in subjects.STREAMS]
    wanted.append(_lease_config(settings))
    steps = [await _ensured(_Stream(js, config), create) for config in wanted]
    missing = {step.what for step in steps if step.outcome == "missing"}
    for spec in (subjects.EXECUTION_IN, subjects.ACCOUNT_SNAPSHOTS):
        stream = settings.nats.prefixed(spec.name)
        consumer = _Consumer(js, stream, _consumer_config(settings))
        if f"stream {stream}" in missing:
            steps.append(Step(consumer.what, "missing"))
        else:
            steps.append(await _ensured(consumer, create))
    return tuple(steps)


async def verify(js: JetStreamContext, settings: Settings) -> None:
    """Return if everything is there.

    Raises:
        ConfigurationError: naming everything that is missing or different, and what to do.
        Transient: as of ``ensure``.
    """
    wrong = [step for step in await ensure(js, settings, create=False) if not step.is_fine]
    if wrong:
        what = "; ".join(f"{step.what} is {step.outcome}{f' ({step.detail})' if step.detail else ''}" for step in wrong)
        raise ConfigurationError(f"NATS: {what}. Run `streamapp init` as a user who may create streams and consumers")


def _stream_config(spec: StreamSpec, settings: Settings) -> api.StreamConfig:
    limits = {str(name): limits for name, limits in settings.nats.streams.items()}.get(spec.name, _OURS)
    return api.StreamConfig(
        name=settings.nats.prefixed(spec.name),
        subjects=[settings.nats.subject(subject) for subject in spec.subjects],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy(limits.discard),
        max_age=limits.max_age_s or spec.max_age_s,
        max_bytes=limits.max_bytes or spec.max_bytes,
        max_msgs_per_subject=spec.max_msgs_per_subject,
        duplicate_window=spec.duplicate_window_s,
        num_replicas=settings.nats.replicas,
    )


def _lease_config(settings: Settings) -> api.StreamConfig:
    bucket = settings.nats.prefixed(subjects.lease_bucket(settings.deployment))
    return api.StreamConfig(  # as nats-py's create_key_value makes it
        name=f"KV_{bucket}",
        subjects=[f"$KV.{bucket}.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=LEASE_BYTES,
        max_msgs_per_subject=1,
        duplicate_window=120.0,
        num_replicas=settings.nats.replicas,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=False,
    )


def _consumer_config(settings: Settings) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        durable_name=settings.nats.prefixed(subjects.mirror_durable(settings.deployment)),
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=MAX_ACK_PENDING,
        max_deliver=-1,
    )


class _Stream:
    def __init__(self, js: JetStreamContext, wanted: api.StreamConfig) -> None:
        self._js, self._wanted = js, wanted
        self.what = f"stream {wanted.name}"

    async def find(self) -> api.StreamConfig:
        return (await self._js.stream_info(str(self._wanted.name))).config

    async def create(self) -> None:
        await self._js.add_stream(self._wanted)

    def changes(self, found: api.StreamConfig) -> dict[str, Any]:
        # Somebody else's stream of the same name would get our subjects.
        if found.subjects and set(found.subjects).isdisjoint(self._wanted.subjects or ()):
            raise ConfigurationError(
                f"NATS: {self.what} has none of our subjects (it has {', '.join(found.subjects)}), so it is somebody "
                "else's: set nats.stream_prefix"
            )
        exact = (
            "retention",
            "storage",
            "discard",
            "max_msgs_per_subject",
            "allow_rollup_hdrs",
            "deny_delete",
            "max_msgs",
            "max_msg_size",
        )
        wanted = replace(self._wanted, max_msgs=-1)
        changes = {name: getattr(wanted, name) for name in exact if getattr(found, name) != getattr(wanted, name)}
        for name in ("max_age", "max_bytes"):
            ours, theirs = getattr(wanted, name), getattr(found, name)
            if not _is_unlimited(theirs) and (_is_unlimited(ours) or theirs < ours):
                changes[name] = ours
        for name in ("duplicate_window", "num_replicas"):
            if (getattr(found, name) or 0) < getattr(wanted, name):
                changes[name] = getattr(wanted, name)
        if missing := set(wanted.subjects or ()) - set(found.subjects or ()):
            changes["subjects"] = sorted(missing | set(found.subjects or ()))
        return changes

    async def update(self, found: api.StreamConfig, changes: dict[str, Any]) -> None:
        await self._js.update_stream(found.evolve(**changes))


class _Consumer:
    def __init__(self, js: JetStreamContext, stream: str, wanted: api.ConsumerConfig) -> None:
        self._js, self._stream, self._wanted = js, stream, wanted
        self.what = f"consumer {wanted.durable_name} on {stream}"

    async def find(self) -> api.ConsumerConfig:
        info = await self._js.consumer_info(self._stream, str(self._wanted.durable_name))
        return cast(api.ConsumerConfig, info.config)

    async def create(self) -> None:
        await self._js.add_consumer(self._stream, self._wanted)

    def changes(self, found: api.ConsumerConfig) -> dict[str, Any]:
        names = (
            "deliver_policy",
            "ack_policy",
            "ack_wait",
            "max_ack_pending",
            "max_deliver",
            "filter_subject",
            "filter_subjects",
        )
        pairs = {name: (getattr(found, name), getattr(self._wanted, name)) for name in names}
        return {name: ours for name, (theirs, ours) in pairs.items() if theirs != ours}

    async def update(self, found: api.ConsumerConfig, changes: dict[str, Any]) -> None:
        await self._js.add_consumer(self._stream, found.evolve(**changes))


def _is_unlimited(limit: float | None) -> bool:
    return limit is None or limit <= 0


async def _ensured(thing: _Stream | _Consumer, create: bool) -> Step:
    try:
        found: Any = await _answer(thing.what, thing.find)
    except NotFoundError:
        if not create:
            return Step(thing.what, "missing")
        await _answer(thing.what, thing.create)
        return Step(thing.what, "created")
    changes = thing.changes(found)
    if not changes:
        return Step(thing.what, "present")
    detail = ", ".join(
        f"{name}: expected {value}, got {getattr(found, name)}" for name, value in sorted(changes.items())
    )
    if not create:
        return Step(thing.what, "different", detail)
    await _answer(thing.what, lambda: thing.update(found, changes))
    return Step(thing.what, "updated", detail)


async def _answer(what: str, ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await ask()
    except NotFoundError:
        raise
    except (nats.errors.Error, TimeoutError, OSError) as error:
        if isinstance(error, APIError) and error.err_code == _OVERLAP:
            raise ConfigurationError(
                f"NATS refuses {what}: another stream of this account has some of its subjects, such as one of another "
                "installation. Give each installation an account, or a nats.subject_prefix and a nats.stream_prefix"
            ) from error
        if isinstance(error, APIError) and error.code != 503:
            raise ConfigurationError(
                f"NATS refuses {what}: {error.description}. Mend it, then run `streamapp init` again"
            ) from error
        raise Transient(
            f"NATS: JetStream did not answer about {what} ({error!r}). "
            "It is starting, not enabled, or this user may not use $JS.API"
        ) from error
