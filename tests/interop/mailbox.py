"""What waits at the relay for who is not there: PROTOCOL.md, "Mailbox"."""

import contextlib
import json
import sqlite3

from client import envelope
from devices import Peer

# What one of the relay's default is.
BOUNDS = {"bytes_max": 4 << 20, "count_max": 256, "message_max": 1 << 20, "age_max_sec": 7 * 86400}


async def keep(peer, device, number, keep="quiet", kind="chat.done", **payload):
    """Sends a message that is to be kept; its id."""
    return await peer.send(kind, {"n": number} | payload, device=device, keep=keep)


async def kept(peer, device, number, **more):
    """The same, and it is on the relay's disk."""
    ref = await keep(peer, device, number, **more)
    assert await peer.expect("relay.kept") == {"ref": ref, "device": device}
    return ref


async def page(peer):
    """The messages of a page, and what the relay says behind it."""
    messages = []
    while True:
        message = await peer.receive()
        if message["type"] == "relay.mail":
            return messages, message["payload"]
        messages.append(message)


async def drain(peer, confirm=True):
    """All that waits for a receiver that has just come, confirmed page by page; the numbers, and what has expired."""
    numbers, lost = [], 0
    while True:
        messages, end = await page(peer)
        numbers += [message["payload"]["n"] for message in messages]
        lost += end["lost"]
        if confirm and (messages or end["lost"]):
            await peer.send("relay.mail.ack", {"upto": end["upto"]})
        if end["left"] == 0:
            return numbers, lost


@contextlib.asynccontextmanager
async def device_of(home, key):
    async with await Peer.join(home.relay, home.token, "phone", key) as device:
        yield device


@contextlib.asynccontextmanager
async def agent_of(home):
    async with await Peer.join(home.relay, home.token, "agent", home.agent.key) as agent:
        await counted(agent)
        yield agent


async def counted(agent):
    """Where nothing can wait for an agent that came so soon after the relay's start that it did not know that."""
    if agent.mail and "waiting" not in agent.mail:
        assert await drain(agent) == ([], 0)


async def gone(home, device):
    """The device leaves, and its agent has heard of it."""
    await device.ws.close()
    assert await home.agent.expect("relay.device") == {"device": device.key.id, "online": False}


def waiting(relay, device=None):
    """How many messages the relay has on its disk, for a device or for all receivers."""
    path = relay.db.with_name("relay.db.mail")
    number = device and int.from_bytes(bytes.fromhex(device), "big", signed=True)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            return file.execute("SELECT count(*) FROM message WHERE ?1 IS NULL OR device = ?1", (number,)).fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # it comes with the first message, and is being made


def sized(kind, size, number, **more):
    """The text of a message of exactly `size` bytes, and its id."""
    message = envelope(kind, {"n": number, "text": ""}, **more)
    missing = size - len(json.dumps(message))
    assert missing >= 0
    message["payload"]["text"] = "x" * missing
    return json.dumps(message), message["id"]
