"""A network between clients and the relay, on the level of bytes: it cuts, falls silent, freezes, at any byte."""

import asyncio
import contextlib
import socket
import struct

CHUNK = 65536


class Wire:
    """One connection of a client and the relay's side of it.

    `left`: how many bytes still pass, in both directions together, before `fault` happens; None: all.
    """

    def __init__(self, network, client, relay):
        self.network, self.client, self.relay = network, client, relay
        self.passing = asyncio.Event()
        self.passing.set()
        self.left, self.fault = None, None
        self.swallows = False
        self.late = b""  # what the relay has said since the wire froze; it is read all the same
        self.is_gone = False

    def reset(self):
        """RST to both sides, without a word."""
        for _, writer in (self.client, self.relay):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def swallow(self):
        """What is sent from now on arrives nowhere, and nobody is told: both sides believe in a connection."""
        self.swallows = True

    def half_open(self):
        """The client is gone, and the relay is not told."""
        self.swallow()
        self.client[1].transport.abort()

    def freeze(self):
        """Nothing moves, and each side's words wait."""
        self.passing.clear()

    async def delay(self):
        """As `freeze`, and later all of it moves on."""
        self.passing.clear()
        await asyncio.sleep(0.2)
        late, self.late = self.late, b""
        self.client[1].write(late)
        self.passing.set()

    async def carry(self):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(self.client[0], self.relay[1], False))
                group.create_task(self._carry(self.relay[0], self.client[1], True))
        except* (OSError, EOFError):
            pass
        finally:
            self.is_gone = True
            for _, writer in (self.client, self.relay):
                writer.close()

    async def _carry(self, reader, writer, is_down):
        try:
            await self._read(reader, writer, is_down)
        except (OSError, EOFError):
            if self.swallows or not self.passing.is_set():  # the other side does not learn that this one has ended
                await asyncio.Event().wait()
            raise

    async def _read(self, reader, writer, is_down):
        while data := await reader.read(CHUNK):
            if self.left is not None:
                passed, data = data[: self.left], data[self.left :]
                self.left -= len(passed)
                await self._pass(passed, writer, is_down)
                if data or not self.left:
                    self.left = None
                    happens = self.fault(self)
                    if asyncio.iscoroutine(happens):
                        self.network.later(happens)
            await self._pass(data, writer, is_down)
        raise EOFError

    async def _pass(self, data, writer, is_down):
        if is_down and not self.passing.is_set():
            self.late += data
            return
        await self.passing.wait()
        if data and not self.swallows:
            writer.write(data)
            await writer.drain()


class Network:
    """In front of one relay, which may be restarted on its port. `on_wire` gets each new connection."""

    def __init__(self, port, on_wire=lambda _wire: None):
        self.relay_port, self.on_wire = port, on_wire
        self.wires, self.tasks = [], set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/ws"

    def later(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @property
    def living(self):
        return [wire for wire in self.wires if not wire.is_gone]

    def _connected(self, reader, writer):
        self.later(self._carry(reader, writer))

    async def _carry(self, reader, writer):
        try:
            relay = await asyncio.open_connection("127.0.0.1", self.relay_port)
        except OSError:  # the relay is being restarted
            writer.transport.abort()
            return
        wire = Wire(self, (reader, writer), relay)
        self.wires.append(wire)
        self.on_wire(wire)
        await wire.carry()
