"""What a relay says to clients of the wire contract, byte for byte: each frame, with ids, times and tokens masked.

    CORALMUX_RELAY=FOLDER/coralmux-relay python transcript.py FILE

writes it down. `test_transcript.py` compares it with what the relay under test says.
"""

import asyncio
import pathlib
import re
import sys
import tempfile

import raw
from relay import Relay

FLAGS = ("--register-rate", "0", "--phone-rate", "40", "--agent-rate", "40", "--max-message", "64KiB")
UNKNOWN = "oc_pair_" + "0" * 32
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
MASKS = [(rf'"id":"{UUID}"', '"id":"<uuid>"'), (r'"ts":\d{13}', '"ts":<ms>'), (r'"retry_after_ms":\d+', '"retry_after_ms":<ms>')]
MASKS += [(r'"daily_used_bytes":\d+', '"daily_used_bytes":<bytes>')]
# As clients write them, and as nobody does; each is forwarded as it is, or refused.
MESSAGES = [
    '{"v":1,"type":"chat.send","id":"m1","ts":1707451200000,"payload":{"text":"hello"}}',
    ' { "payload" : null , "type" : "chat.send" , "id":"m2" }\n',
    '{"type":"made.up","id":"m3","x":[1.0,1e3,"\\u00e9"],"payload":{"z":1,"a":2}}',
    '{"type":"key_exchange","id":"m4","payload":{"pubkey":"AAAA"}}',
    '{"type":"chat.error","id":"m5","payload":{"code":"BACKEND_ERROR","message":"no"}}',
    '{"type":"ack","id":"m6","payload":{"a":{"e":"","n":0},"r":true}}',
    '{"type":"relay.bind","id":"m7","payload":{"legacy_phone":false}}',
    '{"type":"relay.sleep","payload":{}}',
    '{"type":"relay.ok","payload":{"ref":"m7"}}',
    '{"type":"chat.done","id":"m8","device":"0123456789abcdef","keep":"wake","payload":{}}',
    '{"type":"chat.send","id":"m9","device":7,"payload":{}}',
    '{"type":"chat.stream","id":"m10","payload":{"delta":"x","seq":1}}',
    '{"type":"status","id":"m11","payload":{"peer":"online"}}',
    '{"type":"auth","id":"m12","payload":{}}',
    '{"type":"auth.ok","id":"m13","payload":{}}',
    '{"type":"pong","id":"m14","payload":null}',
    '{"type":"ping","id":"m15","payload":{}}',
    '{"type":"ping"}',
    '{"id":"m16","payload":{}}',
    '{"type":7,"id":"m17"}',
    '{"type":"x","id":7}',
    '{"type":"x","id":"a","id":"b"}',
    "[]",
    "",
    "no json",
    '{"type":"chat.send","id":"large","payload":{"text":"' + "x" * 70_000 + '"}}',
]


class Witness:
    """One client, and what it was told since the last time."""

    def __init__(self, name, socket, lines):
        self.name, self.socket, self.lines = name, socket, lines

    def note(self, text):
        for pattern, mask in MASKS:
            text = re.sub(pattern, mask, text)
        self.lines.append(f"{self.name} {text}".replace("\n", "\\n"))

    async def say(self, text, opcode=raw.TEXT):
        await self.socket.write(raw.frame(opcode, text))

    async def next(self):
        """What comes, however long that takes."""
        frame = await self.socket.read_frame()
        self.note(f"{int(frame.fin)} {frame.opcode} {frame.payload.decode()}")

    async def told(self, said=""):
        """All that has come: a `ping` is answered behind it. `said`: what this client has said before, perhaps one, too."""
        await self.say('{"type":"ping"}')
        pongs = 2 if '"type":"ping"' in said else 1
        while pongs:
            frame = await self.socket.read_frame()
            pongs -= b'"type":"pong"' in frame.payload
            if pongs:
                self.note(f"{int(frame.fin)} {frame.opcode} {frame.payload.decode()}")

    async def end(self):
        """What comes up to the close frame, and that."""
        while True:
            frame = await self.socket.read_frame()
            if frame.opcode == raw.CLOSE:
                return self.note(f"close {int.from_bytes(frame.payload[:2], 'big')} {frame.payload[2:].decode()}")
            self.note(f"{int(frame.fin)} {frame.opcode} {frame.payload.decode()}")


async def record(relay):
    """The lines of a transcript."""
    lines, token = [], await relay.token()

    async def connect(name, role=None, token=token):
        socket = await raw.RawSocket.open(relay)
        head = sorted(socket.response.headers.items())
        witness = Witness(name, socket, lines)
        witness.note(f"101 {[item for item in head if item[0] not in ('sec-websocket-accept', 'date')]}")
        if role:
            await socket.write(raw.text(raw.auth(token, role)))
            await witness.next()
        return witness

    phone = await connect("phone", "phone")
    for text in MESSAGES:
        await phone.say(text)
        await phone.told(text)
    agent = await connect("agent", "agent")
    await agent.told()
    await phone.told()
    for text in MESSAGES:
        await agent.say(text)
        await agent.told(text)
        await phone.told()
    await agent.say(MESSAGES[0].encode(), raw.BINARY)
    await agent.told()
    await phone.told()
    passed = len(lines)
    while "RATE_LIMITED" not in lines[-1]:  # how many pass before, the clock decides
        await phone.say(MESSAGES[0])
        await agent.told()
        await phone.told()
    del lines[passed:-1]
    other = await connect("other phone", "phone")
    await phone.end()
    await other.told()
    await agent.told()
    await agent.say(raw.struct.pack("!H", 1000) + b"bye", raw.CLOSE)
    await agent.end()
    await other.told()
    agent = await connect("agent again", "agent")
    await agent.told()
    await other.told()
    for path, method, admin in [("", "GET", False), ("", "DELETE", False), ("", "DELETE", True), ("", "GET", False)]:
        answer = await relay.http(method, f"/api/v1/pair/{token}{path}", admin=admin)
        lines.append(f"{method} {answer.status} {answer.body.decode()}")
    await other.end()
    await agent.end()
    for name, first in [
        ("unknown", raw.auth(UNKNOWN, "phone")),
        ("no role", {"type": "auth", "id": "a", "payload": {"token": token}}),
        ("another role", raw.auth(token, "owner")),
        ("no auth", {"type": "chat.send", "id": "a", "payload": {}}),
    ]:
        stranger = await connect(name)
        await stranger.socket.send(first)
        await stranger.end()
    return lines


async def main(path):
    with tempfile.TemporaryDirectory() as folder:
        relay = Relay(folder, *FLAGS).start()
        try:
            lines = await record(relay)
        finally:
            relay.kill()
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
