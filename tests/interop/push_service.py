"""A push service with TLS of its own, and the subscriptions that a browser would make there.

It keeps what it is sent, answers as it is told, and opens what was sealed with libraries that are not ours: http-ece
(RFC 8188, 8291) and py-vapid (RFC 8292). With `browsers()` it also speaks to browsers, as autopush does, so that Firefox
with `dom.push.serverURL` can subscribe here.

As a program, for other languages: `python push_service.py DIRECTORY` says where it is as a line of JSON, then says each
notification as a line.
"""

import asyncio
import base64
import contextlib
import dataclasses
import http
import json
import os
import pathlib
import ssl
import sys
import uuid

import http_ece
import py_vapid
import websockets
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certificates import certificate

HANG = "hang"
"""An answer that never comes."""
PLAINTEXT = 512
"""What is sealed, with its padding."""


def base64url(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclasses.dataclass
class Push:
    """A request as it came."""

    path: str
    headers: dict
    body: bytes
    raw: bytes
    at: float

    def vapid(self):
        """The claims of its signature, and the key that it was made with."""
        value = self.headers["authorization"]
        assert py_vapid.Vapid02.verify(value)
        scheme, _, fields = value.partition(" ")
        assert scheme == "vapid"
        fields = dict(field.strip().split("=", 1) for field in fields.split(","))
        return json.loads(from_base64url(fields["t"].split(".")[1])), fields["k"]


class Subscription:
    """What a browser has after `PushManager.subscribe`."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    def payload(self, kind="webpush", origin="https://relay.example", **more):
        """That of `relay.push`."""
        public = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        payload = {"kind": kind, "endpoint": self.endpoint, "p256dh": base64url(public), "auth": base64url(self.auth)}
        return payload | ({"origin": origin} if origin else {}) | more

    def open(self, push):
        """What a notification says, as bytes."""
        return http_ece.decrypt(push.body, private_key=self.key, auth_secret=self.auth, version="aes128gcm")


class PushService:
    """One that runs while it is entered."""

    def __init__(self, directory, with_tls=True):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.tls = None
        if with_tls:
            self.cert, key = certificate(directory, "push", "localhost", "IP:127.0.0.1")
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(self.cert, key)
        self.pushes = asyncio.Queue()
        self.answers = {}
        self.connections = 0
        self.writers = set()
        self.open = self.open_most = self.hung = 0
        self.browser_endpoints = {}

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    @property
    def host(self):
        """For `--push-hosts`."""
        return f"localhost:{self.port}"

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{self.host}"

    @property
    def environment(self):
        """Makes a relay trust its certificate."""
        return {"SSL_CERT_FILE": str(self.cert)}

    def subscribe(self, path=None):
        return Subscription(f"{self.url}{path or f'/push/{uuid.uuid4()}'}")

    def answer(self, subscription, *answers):
        """The next notifications to it are answered so: a status, or (status, headers, body), or HANG; then with 201."""
        self.answers.setdefault(subscription.endpoint.removeprefix(self.url), []).extend(answers)

    async def next(self, timeout=10):
        """The next notification."""
        return await asyncio.wait_for(self.pushes.get(), timeout)

    async def none(self, seconds=0.5):
        """There is none for so long."""
        await asyncio.sleep(seconds)
        assert self.pushes.empty(), self.pushes.get_nowait()

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError, ssl.SSLError):
            while await self.converse(reader, writer):
                pass
        self.writers.discard(writer)
        writer.close()

    async def converse(self, reader, writer):
        """One request; whether there may be another."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        push = Push(path, headers, body, head + body, asyncio.get_running_loop().time())
        self.pushes.put_nowait(push)
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        try:
            return await self.reply(method, push, reader, writer)
        finally:
            self.open -= 1

    async def reply(self, method, push, reader, writer):
        waiting = self.answers.get(push.path)
        answer = waiting.pop(0) if waiting else 201
        if answer == HANG:
            self.hung += 1
            # Until the relay gives up.
            await reader.read()
            self.hung -= 1
            return False
        status, more, body = answer if isinstance(answer, tuple) else (answer, {}, b"")
        if method != "POST":
            status = 405
        if status == 201:
            await self.pass_on(push)
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return True

    @contextlib.asynccontextmanager
    async def browsers(self):
        """Speaks to browsers, as autopush does; the URL for `dom.push.serverURL`."""
        async with websockets.serve(self.talk, "127.0.0.1", 0, ssl=self.tls) as server:
            scheme = "wss" if self.tls else "ws"
            yield f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"

    async def talk(self, browser):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in browser:
                if message == "{}":
                    await browser.send("{}")
                    continue
                message = json.loads(message)
                reply = self.browser_reply(browser, message)
                if reply:
                    await browser.send(json.dumps({"messageType": message["messageType"], **reply}))

    def browser_reply(self, browser, message):
        match message["messageType"]:
            case "hello":
                uaid = message.get("uaid") or uuid.uuid4().hex
                for endpoint in self.browser_endpoints.values():
                    if endpoint["channel"] in message.get("channelIDs", []):
                        endpoint["browser"] = browser
                return {"uaid": uaid, "status": 200, "use_webpush": True, "broadcasts": {}}
            case "register":
                path = f"/wpush/v2/{uuid.uuid4()}"
                self.browser_endpoints[path] = {"browser": browser, "channel": message["channelID"]}
                return {"channelID": message["channelID"], "status": 200, "pushEndpoint": self.url + path}
            case "unregister":
                gone = [p for p, e in self.browser_endpoints.items() if e["channel"] == message["channelID"]]
                for path in gone:
                    del self.browser_endpoints[path]
                return {"channelID": message["channelID"], "status": 200}
        return None

    async def pass_on(self, push):
        """A browser that has subscribed gets the notification."""
        endpoint = self.browser_endpoints.get(push.path)
        if endpoint:
            message = {
                "messageType": "notification",
                "channelID": endpoint["channel"],
                "version": uuid.uuid4().hex,
                "data": base64url(push.body),
                "headers": {"encoding": push.headers["content-encoding"]},
            }
            await endpoint["browser"].send(json.dumps(message))


async def main(directory):
    async with PushService(directory) as service, service.browsers() as browsers:
        say({"host": service.host, "url": service.url, "browsers": browsers, "cert": str(service.cert)})
        while True:
            push = await service.pushes.get()
            say({"path": push.path, "headers": push.headers, "body": base64url(push.body)})


def say(message):
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
