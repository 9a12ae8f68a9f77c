"""A strategy: long while the price is above its mean, short while it is below, flat at the end. A hedging account's."""

import asyncio
import json
import sys
import uuid

import nats

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
ACCOUNT, SYMBOL, LOOKS = "demo-hedging", "EURUSD", 20


async def main() -> None:
    client = await nats.connect(ADDRESS)
    answers: asyncio.Queue = asyncio.Queue()
    for subject in (f"signals.accepted.{SYMBOL}", f"signals.refused.{SYMBOL}"):
        await client.subscribe(subject, cb=answers.put)

    async def send(**said: object) -> None:
        signal = {"signal_id": str(uuid.uuid4()), "status": "approved", "account": ACCOUNT, "strategy": "mean"}
        payload = json.dumps(signal | {"symbol": SYMBOL} | said).encode()
        stored = await client.jetstream().publish(f"signals.approved.{SYMBOL}", payload)
        while (answer := json.loads((await asyncio.wait_for(answers.get(), 30)).data))["stream_seq"] != stored.seq:
            pass  # somebody else's answer, or an earlier one
        print(said, "->", answer["schema"], answer.get("order_ids") or answer["detail"])

    seen, side = [], None
    for _ in range(LOOKS):
        reply = await client.request(f"mt5.{ACCOUNT}.quote", json.dumps({"symbol": SYMBOL}).encode(), timeout=5)
        seen.append(float(json.loads(reply.data)["content"]["bid"]))
        wanted = "buy" if seen[-1] >= sum(seen) / len(seen) else "sell"
        if wanted != side:
            if side:
                await send(intent="close")
            await send(side=wanted, order_type="market", volume="0.10")
            side = wanted
        await asyncio.sleep(0.2)
    await send(intent="close")
    await client.close()


asyncio.run(main())
