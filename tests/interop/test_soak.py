"""Random pairs at once: sizes, fragments, cuts, pings and slow readers as they come. The seed of a failure is printed.

CORALMUX_SOAK_SEED repeats one, CORALMUX_SOAK_SECONDS makes it longer.
"""

import asyncio
import json
import os
import random
import time

import pytest

import raw
from client import MAX_SIZE

SECONDS = float(os.environ.get("CORALMUX_SOAK_SECONDS", "8"))
PAIRS = 6
# Around the edges of header forms, buffers, fragments and marks; and anything up to 1.5 MiB.
EDGES = [60, 125, 126, 127, 4096, 16384, 32767, 32768, 32769, 65535, 65536, 131072, 262143, 262144, 262145, 400_000]
EDGES += [1 << 20, 2 << 20]


def message(rng, number):
    """The text of a message that says its number, of a random size, with characters of one to four bytes."""
    size = rng.choice(EDGES) + rng.randint(-3, 3) if rng.random() < 0.3 else int(2 ** rng.uniform(5, 20.6))
    kind = rng.choice(["file.piece", "chat.tool_status", "x"])
    text = json.dumps({"type": kind, "id": f"n-{number}", "payload": {"n": number, "x": ""}})
    filler = rng.choice(["x", '\\"', "\u00e9", "\u6f22", "\U0001f40b", "[{]}"])
    count = max(0, size - len(text)) // len(filler.encode())
    return (text[:-3] + filler * count + text[-3:]).encode()


def frames(rng, text, number):
    """The frames of one message, perhaps fragmented, perhaps with pings in between; and the pings' payloads."""
    pings = []
    if rng.random() < 0.7:
        return raw.frame(raw.TEXT, text), pings
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(1, 5)))
    data = b""
    for index, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True)):
        data += raw.frame(raw.CONT if index else raw.TEXT, text[start:stop], fin=index == len(cuts))
        if rng.random() < 0.3:
            pings.append(f"{number}.{index}".encode())
            data += raw.frame(raw.PING, pings[-1])
    return data, pings


class Side:
    """One end of a pair: writes at random, reads at random, remembers what the other end has to get."""

    def __init__(self, socket, seed):
        self.socket, self.rng = socket, random.Random(seed)
        self.sent, self.pings = asyncio.Queue(), []

    async def writes(self, until):
        rng, number = self.rng, 0
        while time.monotonic() < until:
            batch = b""
            for _ in range(rng.choice([1, 1, 1, 2, 5, 30])):
                text = message(rng, number)
                data, pings = frames(rng, text, number)
                batch += data
                self.pings += pings
                self.sent.put_nowait(text)
                number += 1
                if len(batch) > 2 * MAX_SIZE:
                    break
            while batch:
                cut = len(batch) if rng.random() < 0.5 else rng.randint(1, len(batch))
                await self.socket.write(batch[:cut])
                batch = batch[cut:]
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.uniform(0, 0.02))
        self.sent.put_nowait(None)
        await self.socket.write(raw.text({"type": "ping", "id": "last"}))

    async def reads(self, other):
        rng, got = random.Random(self.rng.random()), 0
        own_pong = False
        while True:
            expected = await other.sent.get()
            if expected is None:
                break
            if rng.random() < 0.05:
                await asyncio.sleep(rng.uniform(0, 0.1))
            while (received := await self.socket.receive_bytes(timeout=60)) != expected:
                assert not own_pong and json.loads(received)["type"] == "pong", (got, received[:80], expected[:80])
                own_pong = True
            got += 1
        if not own_pong:
            assert (await self.socket.receive(timeout=60))["type"] == "pong"
        pongs = [frame.payload for frame in self.socket.controls if frame.opcode == raw.PONG]
        assert pongs == self.pings
        return got


async def soak(relay, seed):
    token = await relay.token()
    async with await raw.RawSocket.authed(relay, token, "agent") as agent:
        buffer = random.Random(seed).choice([None, 16384, 65536])
        async with await raw.RawSocket.authed(relay, token, "phone", receive_buffer=buffer) as phone:
            assert (await agent.receive())["type"] == "status"
            a, b = Side(agent, f"{seed} agent"), Side(phone, f"{seed} phone")
            until = time.monotonic() + SECONDS
            try:
                async with asyncio.timeout(SECONDS + 60):
                    results = await asyncio.gather(a.writes(until), b.writes(until), a.reads(b), b.reads(a))
            except BaseException:
                print(f"CORALMUX_SOAK_SEED={seed}")
                raise
            assert results[2] > 0 and results[3] > 0


@pytest.mark.quiet
@pytest.mark.parametrize("memory", ["plenty", "little"])
async def test_random_pairs_at_once_lose_nothing_and_keep_their_order(start_relay, memory):
    """Byte for byte, in order, each ping answered, in both directions at once, whatever the other pairs do.

    With little memory for messages under way, reading has to wait for it; it does not fail, and nobody waits forever.
    """
    flags = ["--phone-rate=0", "--agent-rate=0", "--stream-rate=0", "--daily-quota=0", "--monthly-quota=0"]
    if memory == "little":
        flags.append("--memory-budget=6MiB")
    relay = start_relay(*flags)
    fixed = os.environ.get("CORALMUX_SOAK_SEED")
    # Fewer where memory is little: who has some and is slower than 256 KiB a second loses it to those who wait.
    pairs = PAIRS if memory == "plenty" else PAIRS // 2
    seeds = [int(fixed)] if fixed else [random.randrange(1 << 32) for _ in range(pairs)]
    await asyncio.gather(*(soak(relay, seed) for seed in seeds))
    assert relay.running(), relay.log()
