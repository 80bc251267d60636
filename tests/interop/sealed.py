"""TLS in the tests: certificates, a relay that speaks it, and a client that holds its own records."""

import contextlib
import dataclasses
import socket
import ssl
import subprocess

import raw
from certificates import certificate, tls_flags
from metrics import scrape
from relay import GENEROUS, free_port

NAME = "relay.example"
TIMEOUT = 15


@dataclasses.dataclass
class TlsRelay:
    """The TLS side of a relay; `plain` is the same relay without it."""

    plain: object
    port: int
    metrics: int
    ca: str

    @property
    def url(self):
        return f"wss://localhost:{self.port}/ws"

    def context(self, version=None):
        context = ssl.create_default_context(cafile=self.ca)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    async def token(self):
        return await self.plain.token()

    async def handshakes(self):
        """How handshakes ended so far, as the metrics have it (they are a second late)."""
        samples = (await scrape(self.metrics)).samples.items()
        found = [(dict(labels), count) for (name, labels), count in samples if name == "coralmux_tls_handshakes_total"]
        return {labels["outcome"]: int(count) for labels, count in found}


def start(start_relay, directory, *flags):
    """A relay with a plain port and a TLS port, two shards, and certificates for two names."""
    first = certificate(directory, NAME, NAME, "localhost", "IP:127.0.0.1")
    second = certificate(directory, "other.example")
    port, metrics = free_port(), free_port()
    listen = ["-addr", f"tls://127.0.0.1:{port}", "--metrics-addr", f"127.0.0.1:{metrics}"]
    relay = start_relay(*listen, *GENEROUS, *tls_flags(first, second), *flags)
    return TlsRelay(relay, port, metrics, str(first[0]))


class Sealed:
    """A TLS client over a plain socket: what it seals is sent when and how the test says."""

    def __init__(self, port, context, name="localhost", receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.plain = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_split(self, data, piece):
        for at in range(0, len(data), piece):
            self.socket.sendall(data[at : at + piece])

    def shake(self, piece=1 << 20):
        """The handshake; what is sent is sent in pieces of this size."""
        while True:
            try:
                self.tls.do_handshake()
                return self.send_split(self.outgoing.read(), piece)
            except ssl.SSLWantReadError:
                self.send_split(self.outgoing.read(), piece)
                self.feed()

    def feed(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.incoming.write(data)

    def seal(self, data):
        """The records of one write: one for each 16 KiB."""
        self.tls.write(data)
        return self.outgoing.read()

    def send(self, data):
        self.socket.sendall(self.seal(data))

    def more(self):
        """Plaintext as it comes."""
        while True:
            try:
                if data := self.tls.read(1 << 16):
                    return data
                raise EOFError
            except ssl.SSLWantReadError:
                self.feed()

    def until(self, end):
        while end not in self.plain:
            self.plain += self.more()
        data, _, self.plain = self.plain.partition(end)
        return data + end

    def exactly(self, count):
        if len(self.plain) < count:
            pieces = [self.plain]
            missing = count - len(self.plain)
            while missing > 0:
                pieces.append(self.more())
                missing -= len(pieces[-1])
            self.plain = b"".join(pieces)
        data, self.plain = self.plain[:count], self.plain[count:]
        return data

    def message(self):
        """The next message of one frame, as text."""
        _, length = self.exactly(2)
        if length >= 126:
            length = int.from_bytes(self.exactly(2 if length == 126 else 8), "big")
        return self.exactly(length).decode()

    def upgrade(self, port):
        self.send(raw.upgrade(port))
        assert self.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")

    def auth(self, port, token, role):
        self.upgrade(port)
        self.send(raw.text(raw.auth(token, role)))
        assert '"auth.ok"' in self.message()
        return self


@contextlib.contextmanager
def openssl(relay, *flags, name="localhost"):
    """`openssl s_client` with pipes; without a name it sends no SNI."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{relay.port}", "-CAfile", relay.ca]
    command += ["-servername", name] if name else ["-noservername"]
    process = subprocess.Popen(
        [*command, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
