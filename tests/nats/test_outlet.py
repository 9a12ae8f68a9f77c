from __future__ import annotations

from pathlib import Path

import nats
import pytest

from streamapp import subjects
from streamapp.errors import Transient, Unusable
from streamapp.messages.command import CommandRequest
from streamapp.nats.commands import NatsCommands
from streamapp.nats.outlet import JetStreamOutlet
from streamapp.nats.signals import NatsSignals
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Settings
from tests.kit.stacks import running
from tests.nats.servers import own_nats


async def test_the_outlet_stores_once_by_id_and_tells_never_from_not_now(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="connecting"):
        await JetStreamOutlet(lambda: None, 1).publish("orders.filled.X", b"{}", {})
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        client = await nats.connect(spec.address)
        outlet, js = JetStreamOutlet(lambda: client, 1), client.jetstream()
        with pytest.raises(Transient, match="no stream keeps"):
            await outlet.publish("orders.filled.X", b"{}", {})
        await ensure(js, Settings(nats=NatsSettings(url=spec.address)), create=True)
        for _ in range(3):
            await outlet.publish("orders.filled.X", b"{}", {subjects.MESSAGE_ID_HEADER: "d:order:o-1:1"})
        stream = await js.stream_info("EXECUTION_OUT")
        assert stream.state.messages == 1
        with pytest.raises(Unusable, match="too_long"):
            await outlet.publish("orders.filled.X", b"x" * 1_100_000, {})
        with pytest.raises(Unusable, match="bad_subject"):
            await outlet.publish("orders.filled. X", b"{}", {})
        await js.update_stream(stream.config.evolve(max_msg_size=100))
        with pytest.raises(Unusable, match="too_long"):
            await outlet.publish("orders.filled.X", b"x" * 1000, {})
        await js.update_stream(stream.config.evolve(max_bytes=1000, discard="new"))
        full = r"stream EXECUTION_OUT is full .*Raise max_bytes in \[nats\.streams\.EXECUTION_OUT\]"
        with pytest.raises(Transient, match=full):
            await outlet.publish("orders.filled.X", b"x" * 1000, {})
        inward = (await js.stream_info("EXECUTION_IN")).config
        await js.update_stream(inward.evolve(max_bytes=1, discard="new"))
        with pytest.raises(Transient, match=r"stream EXECUTION_IN is full .*`streamapp init`"):
            await NatsSignals(lambda: client, NatsSettings()).publish(b"x" * 1000, symbol="EURUSD", message_id=None)
        command = CommandRequest(request_id="r-1", account="demo", reason="over")
        with pytest.raises(Transient, match=r"stream EXECUTION_IN is full .*and send the command again"):
            await NatsCommands(lambda: client, NatsSettings()).publish("account.halt", command)
        await client.close()
        with pytest.raises(Transient, match="NATS: "):
            await outlet.publish("orders.filled.X", b"{}", {})
