"""Kafka and NATS go away under a mirror: it stays up, says so, and goes on by itself with nothing lost."""

from __future__ import annotations

from pathlib import Path

from streamapp import topics
from streamapp.local import kafka
from streamapp.local.ports import free_port
from tests.kit.stacks import running
from tests.mirror.worlds import becomes, first_sights, signal_for, world
from tests.nats.servers import own_nats


async def test_kafka_and_nats_may_be_killed_and_come_back(tmp_path: Path) -> None:
    spec = kafka.prepare(tmp_path / "kafka", free_port(), free_port())
    nats_spec = own_nats(tmp_path)
    with running(spec, tmp_path) as broker, running(nats_spec, tmp_path) as server:
        async with world(tmp_path, spec.address, send_timeout_s=1.0, nats=nats_spec) as here:
            mirror = await here.mirror().start()
            await mirror.ready()

            broker.kill()
            for number in range(100):
                await here.client.publish("signals.approved.EURUSD", signal_for("a", number))
            await here.client.flush()
            health = await becomes(lambda: mirror.health() if mirror.health()["code"] == 503 else None)
            assert "Kafka" in str(health["reasons"])
            with running(spec, tmp_path):
                await mirror.ready()
                await here.all_mirrored(100)

                server.kill()
                await becomes(lambda: "NATS: not connected" in str(mirror.health()["reasons"]))
                with running(nats_spec, tmp_path):
                    await mirror.ready()
                    await becomes(lambda: here.client.is_connected)
                    for number in range(100, 200):
                        await here.client.publish("signals.approved.EURUSD", signal_for("a", number))
                    await here.client.flush()
                    await here.all_mirrored(200)
                    records = await here.records(200, topics.SIGNALS_APPROVED)
                    assert first_sights(records) == {b"a": list(range(200))}
                    await mirror.kill()
