"""Phones and agents in three implementations with one interface for tests: Python, Rust and the browser."""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil

import pytest

import coralmux
from coralmux import Protection

from relay import ROOT, binary

TIMEOUT = 40  # much more than anything takes, also while other tests compute
RUST = pathlib.Path(os.environ.get("CORALMUX_END", pathlib.Path(binary()).parent / "examples/end"))
NODE = ROOT / "tests/interop/node"
MAKES = {"phone": ["python", "rust", "browser"], "agent": ["python", "rust"]}


def missing(make):
    """Why this make cannot be tested here; None if it can."""
    if make.startswith("rust") and not RUST.exists():
        return f"{RUST} is not built"
    if make == "browser" and not (shutil.which("node") and (NODE / "node_modules/ws").exists()):
        return "node or its packages are not installed"
    return None


def verdict(protection):
    return {Protection.VERIFIED: 2, Protection.UNVERIFIED: 1}.get(protection)


class End:
    """One end. Events are dicts: `secure` (`version`, `fingerprint`), `message` (`type`, `payload`, `missed`),
    `error` (`code`, `authenticated`), `refused` (`message`), and what else its make tells."""

    def __init__(self):
        self.events = asyncio.Queue()
        self.fingerprint = None  # the newest, among the events that were looked at

    async def event(self, *names, timeout=TIMEOUT):
        """The next event of these names; others are passed over."""
        async with asyncio.timeout(timeout):
            while True:
                event = await self.events.get()
                if event["event"] == "secure":
                    self.fingerprint = event.get("fingerprint")
                if event["event"] in names:
                    return event

    async def secure(self):
        event = await self.event("secure")
        return event["version"], event.get("fingerprint")

    async def message(self, kind):
        """The payload of the next message, which has to be of this type."""
        event = await self.event("message")
        assert event["type"] == kind, event
        return event["payload"]


class PythonEnd(End):
    def __init__(self, role, link, **options):
        super().__init__()
        self.client = coralmux.Client(role, link, proxy=None, delays=(0.01, 0.1), **options)
        self.outgoing = asyncio.Queue()

    async def __aenter__(self):
        await self.client.__aenter__()
        self.tasks = [asyncio.create_task(self._take()), asyncio.create_task(self._send())]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.client.__aexit__()

    async def send(self, kind, payload):
        """In order, and as soon as there are keys: like the others, it does not wait for them."""
        await self.outgoing.put((kind, payload))

    async def _send(self):
        while True:
            await self.client.send(*await self.outgoing.get(), timeout=None)

    async def _take(self):
        async for event in self.client:
            authenticated = event.protection is not Protection.CLEAR
            if event.type == "client.agreed":
                named = {"event": "secure", "version": verdict(event.protection), "fingerprint": self.client.fingerprint}
            elif event.type.startswith("client."):
                named = {"event": event.type.removeprefix("client."), **event.payload}
            elif event.type == "chat.error":
                named = {"event": "error", "authenticated": authenticated, **event.payload}
            elif event.type == "status":
                named = {"event": event.payload["peer"]}
            else:
                named = {"event": "message", "type": event.type, "payload": event.payload, "missed": event.missed}
            await self.events.put(named)


class ProcessEnd(End):
    """An end that is a process: it takes messages as lines of JSON, and tells events in the same way."""

    def __init__(self, *command):
        super().__init__()
        self.command = [str(part) for part in command]

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.command, stdin=pipe, stdout=pipe, limit=1 << 24)
        self.task = asyncio.create_task(self._take())
        return self

    async def __aexit__(self, *_):
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), TIMEOUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.task.cancel()

    async def send(self, kind, payload):
        self.process.stdin.write(json.dumps({"type": kind, "payload": payload}).encode() + b"\n")
        await self.process.stdin.drain()

    async def _take(self):
        async for line in self.process.stdout:
            await self.events.put(json.loads(line))


def end(make, role, url, token, secret=None, **options):
    """An end that is not started yet: `async with` does that. The test is skipped, in CI failed, where it cannot be.

    Besides the makes there is "old": a client that does not know how to resume. `options` are those of the Python client.
    "rust-answers" makes answers of its pieces, which then grow while they wait.
    """
    if reason := missing(make):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    link = coralmux.Link(token, url, secret)
    if make == "python":
        return PythonEnd(role, link, **options)
    if make == "old":
        return PythonEnd(role, link, resume=False, **options)
    if make == "rust":
        return ProcessEnd(RUST, role, link.for_apps())
    if make == "rust-answers":
        return ProcessEnd(RUST, role, link.for_apps(), "answers")
    return ProcessEnd("node", NODE / "end.mjs", link.for_browsers())


async def device_of(make, home, link, stack, folder):
    """A device of this make in a household: what sends for it. `stack` ends it, if it is a process."""
    if make == "python":
        return (await home.device("phone", link)).client
    if make == "rust":
        return await stack.enter_async_context(ProcessEnd(RUST, "device", link.for_apps(), folder))
    return await stack.enter_async_context(ProcessEnd("node", NODE / "end.mjs", link.for_browsers()))
