"""Starts the real coralmux-agent, and an AI server with OpenAI's chat API whose answers the test writes by the byte."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import relay as relays

sys.path.insert(0, str(relays.ROOT / "clients" / "python"))
from coralmux import Client, Link  # noqa: E402

START_TIMEOUT = 20
STOP_TIMEOUT = 20
TIMEOUT = 30


def program(name):
    """A program beside the relay under test."""
    return str(pathlib.Path(relays.binary()).with_name(name))


class Process:
    """A program whose output is kept; both streams in one file."""

    def __init__(self, directory, command, env=None):
        self.log_path = pathlib.Path(directory) / "output.log"
        environment = {k: v for k, v in os.environ.items() if k not in ("RELAY_ADMIN_KEY", "OPENAI_API_KEY")}
        self.environment = environment | (env or {})
        self.process = self.popen(command, self.environment)

    def popen(self, command, environment):
        with open(self.log_path, "wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def output(self):
        return self.log_path.read_text(errors="replace")

    def link(self, start="openclaw://pair"):
        """The pairing link that it shows."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            found = re.search(rf"^ +({start}\S+)$", self.output(), re.MULTILINE)
            if found:
                return Link.parse(found[1])
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def stop(self, with_signal=signal.SIGTERM):
        self.process.send_signal(with_signal)
        assert self.process.wait(STOP_TIMEOUT) == 0, self.output()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Agent(Process):
    """coralmux-agent, with a state of its own, run by the command `under` if there is one."""

    def __init__(self, directory, relay, *flags, env=None, under=()):
        at = flags.index("--e2e") if "--e2e" in flags else None
        self.pairing = ["--relay", relay, "--qr", "none", *(flags[at : at + 2] if at is not None else [])]
        self.state = {"XDG_STATE_HOME": str(directory)}
        self.command = [*under, program("coralmux-agent"), "--relay", relay, *flags]
        super().__init__(directory, self.command, self.state | (env or {}))

    def link(self, start="openclaw://pair", device=False):
        """The pairing link, as soon as there is one: for a phone that knows no devices, unless it is for a device."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if found := re.search(rf"^ +({start}\S+)$", self.shown(), re.MULTILINE):
                link = Link.parse(found[1])
                return link if device else dataclasses.replace(link, agent=None)
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def shown(self):
        """What `coralmux-agent link` shows."""
        command = [program("coralmux-agent"), "link", *self.pairing]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | self.state).stdout


class AiServer:
    """Answers each request with what `answer(request, write)` writes: a coroutine that gets the request's JSON."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.gone = asyncio.Event()  # a client has closed its connection before the answer's end

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
            body = json.loads(await reader.readexactly(length))
            self.requests.append((head, body))

            async def write(data):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)

            async def watch():
                await reader.read()
                self.gone.set()

            watching = asyncio.create_task(watch())
            await self.answer(body, write)
            watching.cancel()
        except ConnectionError:
            self.gone.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def head(status="200 OK", kind="text/event-stream", *more):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def event(text=None, **fields):
    choice = {"index": 0, "delta": {} if text is None else {"content": text}} | fields
    return b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Phone:
    """A phone on the Python client."""

    def __init__(self, link):
        self.client = Client("phone", link, proxy=None)

    async def __aenter__(self):
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self.client.__aexit__()

    async def ask(self, text, **more):
        return await self.client.send("chat.send", {"text": text} | more)

    async def expect(self, *kinds):
        """The next event of one of these types."""
        async with asyncio.timeout(TIMEOUT):
            async for event in self.client:
                if event.type in kinds:
                    return event

    async def answer(self):
        """What was streamed, and the event that ended it."""
        streamed, end, _ = await self.told()
        return streamed, end

    async def told(self):
        """What was streamed, the event that ended it, and whether the model was said to think."""
        streamed, has_thought = "", False
        while True:
            event = await self.expect("chat.stream", "chat.tool_status", "chat.done", "chat.error")
            if event.type == "chat.tool_status":
                assert event.payload["status"] == "thinking" and event.payload["ref"], event
                has_thought = True
            elif event.type == "chat.stream":
                streamed += event.payload["delta"]
            else:
                return streamed, event, has_thought
