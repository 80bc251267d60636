"""Many tokens with devices that come, go, sleep and are killed, and a relay that is killed: nothing is lost that was kept, and
nothing grows beyond its bounds. CORALMUX_SOAK_SECONDS makes it longer, CORALMUX_SOAK_SEED repeats one."""

import os
import pathlib
import random
import time

from websockets.exceptions import ConnectionClosed

from devices import Peer, bound
from mailbox import counted, device_of
from relay import GENEROUS

SECONDS = float(os.environ.get("CORALMUX_SOAK_SECONDS", "8"))
TOKENS = 8 if SECONDS < 60 else 200
DEVICES = 3


class Life:
    """An agent that writes to a device, which is there or not. What was said to be kept, or taken, has to arrive once."""

    def __init__(self, home, key, rng):
        self.home, self.key, self.rng = home, key, rng
        self.kept, self.taken, self.number = [], [], 0

    async def write(self, agent):
        """Some messages while the device is away."""
        refs = {}
        for _ in range(self.rng.randrange(1, 12)):
            self.number += 1
            ref = await agent.send(
                "chat.done", {"n": self.number, "x": "x" * self.rng.randrange(3000)}, device=self.key.id, keep="wake"
            )
            refs[ref] = self.number
        while refs:
            message = await agent.receive()
            ref = message["payload"].get("ref")
            if ref in refs:
                number = refs.pop(ref)
                if message["type"] == "relay.kept":
                    self.kept.append(number)
                else:
                    assert message["payload"]["code"] == "MAILBOX_FULL", message

    async def read(self):
        """The device comes, takes some or all of it, and goes. Whether something waited."""
        async with device_of(self.home, self.key) as device:
            if device.mail.get("waiting") == 0:
                return False
            while True:
                message = await device.receive()
                if message["type"] == "chat.done":
                    self.taken.append(message["payload"]["n"])
                    if self.rng.random() < 0.02:
                        device.ws.transport.abort()
                        return True
                elif message["type"] == "relay.mail":
                    await device.send("relay.mail.ack", {"upto": message["payload"]["upto"]})
                    if message["payload"]["left"] == 0:
                        # Answered behind the confirmation.
                        await device.expect_silence()
                        return True


async def test_47_nothing_is_lost_and_nothing_grows(start_relay):
    seed = int(os.environ.get("CORALMUX_SOAK_SEED", random.randrange(2**32)))
    print("seed", seed)
    rng = random.Random(seed)
    relay = start_relay(*GENEROUS, "--daily-quota", "0", "--monthly-quota", "0")
    until, resident = time.monotonic() + SECONDS, []
    lives = []
    for _ in range(TOKENS):
        async with bound(relay) as home:
            for _ in range(DEVICES):
                device = await home.device()
                lives.append(Life(home, device.key, rng))
    while time.monotonic() < until:
        for life in rng.sample(lives, min(len(lives), 12)):
            async with await Peer.join(relay, life.home.token, "agent", life.home.agent.key) as agent:
                await counted(agent)
                await life.write(agent)
        if rng.random() < 0.2:
            relay.kill()
            relay.start()
        else:
            resident.append(memory(relay))
        for life in rng.sample(lives, min(len(lives), 12)):
            try:
                await life.read()
            except ConnectionClosed:
                pass
    for life in lives:
        for _ in range(50):
            try:
                if not await life.read():
                    break
            except ConnectionClosed:
                pass
        once = list(dict.fromkeys(life.taken))
        assert once == sorted(once) and set(life.kept) <= set(once), f"seed {seed}"
    mail = relay.db.with_name("relay.db.mail")
    wal = mail.with_name(mail.name + "-wal")
    assert mail.stat().st_size < 64 << 20 and wal.stat().st_size < 64 << 20
    assert max(resident) < min(resident) + (100 << 20), resident


def memory(relay):
    """Resident bytes."""
    return int(pathlib.Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
