"""A relay that is the attacker: it lets in whoever comes, obeys nobody, and says what a test wants.

It routes as the real one does, and says yes to every request; that it does nothing for it is the point.
"""

import asyncio
import contextlib
import hashlib
import json
from base64 import urlsafe_b64decode

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from client import MAX_SIZE


def device_of(key):
    return hashlib.sha256(urlsafe_b64decode(key + "=")).digest()[:8].hex()


class LyingRelay:
    """`who` is "agent", "plain" or a device id. `seen` has all that the ends sent, as (who, message).

    `rewrite(who, message)`: what goes on in place of a message; a list. `admitted`: devices that are not pending.
    `ext(who, ext)`: what `auth.ok` says in place of the truth. `mail(who)`: what it says of a mailbox; None: that it has none.
    """

    def __init__(self, rewrite=None, ext=None, mail=None):
        self.mail = mail or (lambda _who: None)
        self.rewrite, self.ext = rewrite or (lambda _who, message: [message]), ext or (lambda _who, ext: ext)
        self.sockets, self.seen, self.admitted, self.bound = {}, [], set(), False

    async def __aenter__(self):
        self.server = await serve(self._connected, "127.0.0.1", 0, max_size=MAX_SIZE, ping_interval=None)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/ws"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for socket in list(self.sockets.values()):
            socket.transport.abort()
        await self.server.wait_closed()

    def cut(self, who):
        if socket := self.sockets.pop(who, None):
            socket.transport.abort()

    async def tell(self, who, message):
        with contextlib.suppress(KeyError, ConnectionClosed):
            await self.sockets[who].send(json.dumps(message))

    async def until_seen(self, found):
        """The first message, as (who, message), of which this is true."""
        async with asyncio.timeout(20):
            while True:
                for who, message in self.seen:
                    if found(who, message):
                        return message
                await asyncio.sleep(0.01)

    async def _connected(self, socket):
        try:
            auth = json.loads(await socket.recv())["payload"]
            is_agent, key = auth["role"] == "agent", auth.get("key")
            who = "agent" if is_agent else device_of(key) if key else "plain"
            self.seen.append((who, {"type": "auth", "payload": auth}))
            self.sockets[who] = socket
            await socket.send(json.dumps({"type": "auth.ok", "payload": self._auth_ok(who, key)}))
            if is_agent:
                for other in set(self.sockets) - {"agent"}:
                    await self.tell(other, {"type": "status", "payload": {"peer": "online"}})
            elif who == "plain":
                await self.tell("agent", {"type": "status", "payload": {"peer": "online"}})
            else:
                kind = "relay.device" if who in self.admitted else "relay.pending"
                await self.tell("agent", {"type": kind, "payload": {"device": who, "online": True}})
            async for text in socket:
                await self._handle(who, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            if self.sockets.get(who) is socket:
                del self.sockets[who]
                if is_agent:
                    for other in set(self.sockets):
                        await self.tell(other, {"type": "status", "payload": {"peer": "offline"}})
                elif who in self.admitted:
                    await self.tell("agent", {"type": "relay.device", "payload": {"device": who, "online": False}})

    def _auth_ok(self, who, key):
        ext = {"v": 1}
        if who == "agent" and key:
            devices = [{"device": one, "online": one in self.sockets} for one in sorted(self.admitted)]
            ext |= {"bound": self.bound, "legacy": True, "devices": devices}
        elif key:
            ext |= {"device": who} | ({} if who in self.admitted else {"pending": True})
        if who == "agent" or who in self.admitted:
            ext |= self._of_mail(who)
        paired = "plain" in self.sockets if who == "agent" else "agent" in self.sockets
        ext = self.ext(who, ext)
        return {"paired": paired} | ({} if ext is None else {"ext": ext})

    def _of_mail(self, who):
        mail = self.mail(who)
        return {} if mail is None else {"mail": mail}

    async def _handle(self, who, message):
        self.seen.append((who, message))
        if message["type"].startswith("relay."):
            await self._obey(who, message)
            return
        for changed in self.rewrite(who, message):
            device = changed.get("device")
            await self.tell("agent" if who != "agent" else device or "plain", changed)

    async def _obey(self, who, message):
        if who != "agent":
            return
        kind, payload = message["type"], message["payload"]
        if kind == "relay.admit":
            self.admitted.add(payload["device"])
            await self.tell(payload["device"], {"type": "relay.admitted", "payload": self._of_mail(payload["device"])})
        self.bound |= kind == "relay.bind"
        told = self._of_mail("agent") if kind == "relay.bind" else {}
        await self.tell("agent", {"type": "relay.ok", "payload": {"ref": message["id"]} | told})
        if kind == "relay.admit" and payload["device"] in self.sockets:
            await self.tell("agent", {"type": "relay.device", "payload": {"device": payload["device"], "online": True}})
