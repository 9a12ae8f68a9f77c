"""The streams and consumers: created once, mended, never shrunk, and named where they are missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext, api
from nats.js.errors import APIError

from streamapp import subjects
from streamapp.errors import ConfigurationError
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure, verify
from streamapp.settings import NatsSettings, Settings, StreamLimits
from tests.kit.stacks import running
from tests.nats.servers import own_nats


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        yield Settings(nats=NatsSettings(url=spec.address))


@pytest.fixture
async def js(settings: Settings) -> AsyncIterator[JetStreamContext]:
    client = await connect(settings, "test")
    yield client.jetstream()
    await client.close()


async def test_everything_is_created_once_and_then_present(js: JetStreamContext, settings: Settings) -> None:
    assert {step.outcome for step in await ensure(js, settings, create=True)} == {"created"}
    assert {step.outcome for step in await ensure(js, settings, create=True)} == {"present"}
    await verify(js, settings)
    info = await js.stream_info("EXECUTION_IN")
    assert info.config.max_bytes == subjects.EXECUTION_IN.max_bytes
    assert info.config.duplicate_window == 600


async def test_what_is_missing_is_named_and_nothing_is_created(js: JetStreamContext, settings: Settings) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"stream EXECUTION_IN is missing.*consumer streamapp-mirror on EXECUTION_IN.*streamapp init",
    ):
        await verify(js, settings)
    assert await js.streams_info() == []


async def test_a_stream_made_by_somebody_else_is_mended_but_never_shrunk(
    js: JetStreamContext, settings: Settings
) -> None:
    larger = 2 * subjects.EXECUTION_IN.max_bytes
    await js.add_stream(
        name="EXECUTION_IN", subjects=["signals.approved.>", "own.>"], max_age=30 * 86400, max_bytes=larger
    )
    dry = {step.what: step for step in await ensure(js, settings, create=False)}
    assert dry["stream EXECUTION_IN"].outcome == "different"
    assert "duplicate_window: expected 600.0, got 120" in dry["stream EXECUTION_IN"].detail
    made = {step.what: step.outcome for step in await ensure(js, settings, create=True)}
    assert made["stream EXECUTION_IN"] == "updated"
    config = (await js.stream_info("EXECUTION_IN")).config
    assert set(config.subjects or ()) == {*subjects.EXECUTION_IN.subjects, "own.>"}
    assert (config.max_bytes, config.max_age, config.duplicate_window) == (larger, 30 * 86400, 600)
    await verify(js, settings)


async def test_a_refusal_carries_the_servers_reason(js: JetStreamContext, settings: Settings) -> None:
    replicated = settings.nats.model_copy(update={"replicas": 3})
    with pytest.raises(ConfigurationError, match="NATS refuses stream EXECUTION_IN: replicas > 1"):
        await ensure(js, settings.model_copy(update={"nats": replicated}), create=True)


async def test_streams_of_somebody_else_with_our_subjects_or_names_are_left_alone_and_a_prefix_is_advised(
    js: JetStreamContext, settings: Settings
) -> None:
    await js.add_stream(name="SOMEBODY", subjects=["broker.fill.>"])
    with pytest.raises(ConfigurationError, match=r"another stream of this account.*nats\.subject_prefix"):
        await ensure(js, settings, create=True)
    await js.update_stream(name="SOMEBODY", subjects=["other.>"])
    await js.add_stream(name="EXECUTION_OUT", subjects=["theirs.>"])
    for create in (False, True):
        with pytest.raises(ConfigurationError, match=r"stream EXECUTION_OUT has none .*theirs.*nats\.stream_prefix"):
            await ensure(js, settings, create=create)
    assert (await js.stream_info("EXECUTION_OUT")).config.subjects == ["theirs.>"]


async def test_installations_with_prefixes_share_an_account(js: JetStreamContext, settings: Settings) -> None:
    one, two = (
        settings.nats.model_copy(update={"stream_prefix": f"{name}_", "subject_prefix": f"desks.{name}"})
        for name in ("A", "B")
    )
    for nats in (settings.nats, one, two):
        steps = await ensure(js, settings.model_copy(update={"nats": nats}), create=True)
        assert {step.outcome for step in steps} == {"created"}
    names = {str(info.config.name) for info in await js.streams_info()}
    assert names > {"EXECUTION_IN", "A_EXECUTION_IN", "B_EXECUTION_OUT", "KV_A_streamapp-mirror"}
    made = (await js.consumer_info("A_EXECUTION_IN", "A_streamapp-mirror")).config
    assert made.durable_name == "A_streamapp-mirror"
    await js.publish("desks.A.signals.approved.EURUSD", b"{}", stream="A_EXECUTION_IN")
    await js.publish("signals.approved.EURUSD", b"{}", stream="EXECUTION_IN")


async def test_a_consumer_with_other_settings_is_mended(js: JetStreamContext, settings: Settings) -> None:
    await ensure(js, settings, create=True)
    durable = subjects.mirror_durable(settings.deployment)
    await js.add_consumer(
        "EXECUTION_IN", api.ConsumerConfig(durable_name=durable, ack_policy=api.AckPolicy.EXPLICIT, max_deliver=3)
    )
    with pytest.raises(ConfigurationError, match="max_deliver: expected -1, got 3"):
        await verify(js, settings)
    await ensure(js, settings, create=True)
    await verify(js, settings)


async def test_limits_of_the_settings_are_the_streams_and_a_full_one_refuses_what_is_new_if_it_should(
    js: JetStreamContext, settings: Settings
) -> None:
    limits = StreamLimits(max_bytes=20_000, max_age_s=3600, discard="new")
    nats = settings.nats.model_copy(update={"streams": {"EXECUTION_IN": limits}})
    await ensure(js, settings.model_copy(update={"nats": nats}), create=True)
    made = (await js.stream_info("EXECUTION_IN")).config
    assert (made.max_bytes, made.max_age, made.discard) == (20_000, 3600, api.DiscardPolicy.NEW)
    await js.publish(subjects.signal_approved("EURUSD"), b"x" * 12_000)
    with pytest.raises(APIError, match="maximum bytes exceeded"):
        await js.publish(subjects.signal_approved("EURUSD"), b"x" * 12_000)
    assert (await js.stream_info("EXECUTION_IN")).state.first_seq == 1
    assert (await js.stream_info("EXECUTION_OUT")).config.discard == api.DiscardPolicy.OLD
