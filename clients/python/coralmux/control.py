"""How `coralmux pair`, `devices`, `revoke` and `owner` reach the agent that runs: a socket in the folder of its devices,
for its owner alone. A request is a line of JSON, and so is each answer. It is the socket of `coralmux-agent`: the
commands of either reach both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .devices import LINK_LIFE, NotDone
from .wire import dumps

if TYPE_CHECKING:
    from .devices import Devices, Joining

NAME = "control"
LINE_BYTES_MAX = 16 << 10
CALLERS_MAX = 8
IDLE_TIMEOUT = 15 * 60.0  # seconds that a caller may say nothing, while a person decides
NO_DEVICE = "no device has that id; `coralmux devices` lists them"
IS_KNOWN = sys.platform != "win32"  # Python has no such sockets there


class Control:
    """Listens while it is entered. `log` hears why it cannot."""

    def __init__(self, devices: Devices, folder: Path, log: Callable[[str], None]) -> None:
        self.devices, self.folder, self.log = devices, folder, log
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Control:
        if sys.platform == "win32":
            return self
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / NAME).unlink(missing_ok=True)  # of an agent that was killed; the lock keeps a second one out
            listener = socket.socket(socket.AF_UNIX)
            with _socket_path(self.folder) as path:
                listener.bind(path)
            (self.folder / NAME).chmod(0o600)
            self._server = await asyncio.start_unix_server(self._attend, sock=listener, limit=LINE_BYTES_MAX)
        except OSError as error:
            self.log(f"`coralmux pair`, `devices` and `revoke` will not reach this agent: {error}")
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._server:
            self._server.close()
            for caller in self._callers:
                caller.cancel()
            with contextlib.suppress(OSError):
                (self.folder / NAME).unlink(missing_ok=True)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._callers) >= CALLERS_MAX:
            writer.close()
            return
        self._callers.add(task)
        caller = _Caller(reader, writer)
        try:
            while (request := await caller.next()) is not None:
                await caller.tell(await self._answer(request, caller))
        except (OSError, TimeoutError, ValueError, asyncio.CancelledError):
            pass  # it has gone, or says what is no line
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, request: dict[str, Any], caller: _Caller) -> dict[str, Any]:
        what, device = request.get("do"), request.get("device")
        known = isinstance(device, str) and any(peer.device == device for peer in self.devices.admitted)
        try:
            if what == "devices":
                return {"devices": self.devices.list()}
            if what == "pair":
                return await self._pair(caller)
            if what == "revoke" and device == "plain":
                self.devices.end_plain()
                return {"done": "phones that know no devices are not let in any more"}
            if what in ("revoke", "owner") and (not known or not isinstance(device, str)):
                return {"error": NO_DEVICE}
            if what == "revoke" and isinstance(device, str):
                gone = await self.devices.revoke(device, request.get("keep_invited") is True)
                return {"done": f"{gone} device(s) revoked"}
            if what == "owner" and isinstance(device, str):
                self.devices.own(device)
                return {"done": f"{device} is the owner now"}
        except NotDone as error:
            return {"error": str(error)}
        return {"error": "this agent does not know that command"}

    async def _pair(self, caller: _Caller) -> dict[str, Any]:
        """Shows the caller a link and who comes by it, for the person there to decide."""
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def decide(joining: Joining) -> bool:
            about = {"device": joining.device, "name": joining.name, "platform": joining.platform, "code": joining.code}
            await caller.tell({"joined": about})
            return await decided

        link = await self.devices.invite(lifetime=LINK_LIFE, decide=decide)
        try:
            await caller.tell(self.devices.invite_result(link))
            request = await caller.next() or {}
            decided.set_result(request.get("do") == "admit")
        finally:
            if not decided.done():  # nobody is there to compare the code
                decided.set_result(False)
        return {"done": "it is let in" if decided.result() else "it is refused"}


class _Caller:
    """Another process that asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def next(self) -> dict[str, Any] | None:
        """Its next request; None: it has gone."""
        line = await asyncio.wait_for(self.reader.readline(), IDLE_TIMEOUT)
        with contextlib.suppress(ValueError):
            request = json.loads(line)
            return request if isinstance(request, dict) else {}
        return {} if line else None

    async def tell(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self.writer.write(dumps(answer).encode() + b"\n")
            await self.writer.drain()


class AgentGone(Exception):
    """The agent that runs has ended meanwhile."""


class Call:
    """The other side: a command that talks to the agent. Raises OSError where none runs."""

    def __init__(self, folder: Path) -> None:
        if sys.platform == "win32":
            raise OSError("the system has no such sockets")
        self._socket = socket.socket(socket.AF_UNIX)
        with _socket_path(folder) as path:
            self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def ask(self, request: dict[str, Any]) -> None:
        self._socket.sendall(dumps(request).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises AgentGone."""
        while line := self._lines.readline(1 << 20):
            answer = json.loads(line)
            if isinstance(answer, dict) and answer:  # an empty one only looks whether anybody is still there
                return answer
        raise AgentGone


@contextlib.contextmanager
def _socket_path(folder: Path) -> Iterator[str]:
    """The socket's path. One that is too long for a socket (108 bytes) is gone about, where the system can."""
    path = str(folder / NAME)
    if len(os.fsencode(path)) < 100 or sys.platform != "linux":
        yield path
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{opened}/{NAME}"
    finally:
        os.close(opened)
