"""Starts agents on the Python package (bot.py), from the checkout or as they are installed in an environment."""

import asyncio
import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import replace

import relay as relays
from agents import Phone, Process

sys.path.insert(0, str(relays.ROOT / "clients" / "python"))
from coralmux import Client, Link  # noqa: E402

CHECKOUT = {"PYTHONPATH": str(relays.ROOT / "clients" / "python")}
BOT = pathlib.Path(__file__).with_name("bot.py")
TIMEOUT = 30
START_TIMEOUT = 120  # of a framework, on a machine that does other things, too


def coralmux(*arguments, python=sys.executable, **env):
    """Runs the command `coralmux` to its end."""
    if python == sys.executable:
        env = CHECKOUT | env
    command = [python, "-m", "coralmux", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=TIMEOUT)


class Bot(Process):
    """A program that serves an agent, with a state of its own: bot.py, if no other is named.

    It is run by `python`: that of these tests finds the package in the checkout, any other one where it is installed.
    """

    def __init__(self, directory, relay, *flags, state=None, env=None, python=sys.executable, script=BOT):
        self.relay, self.python = relay, python
        self.state = pathlib.Path(state or directory / "state.json")
        env = (CHECKOUT if python == sys.executable else {}) | (env or {})
        super().__init__(directory, [python, str(script), relay, str(self.state), *flags], env)

    def link(self):
        """The link of a plain phone, as soon as there is one: it may be used several times."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self.state.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        flags = ["--relay", self.relay, "--state", str(self.state), "--qr", "none"]
        shown = coralmux("link", *flags, python=self.python)
        return replace(Link.parse(re.search(r"^ +(openclaw://pair\S+)$", shown.stdout, re.MULTILINE)[1]), agent=None)


async def appears(path):
    """Waits until there is such a file."""
    async with asyncio.timeout(TIMEOUT):
        while not path.exists():
            await asyncio.sleep(0.01)


async def answered(phone):
    """What was streamed, and the event that ended it, whatever else is told."""
    streamed = ""
    while True:
        event = await phone.expect("chat.stream", "chat.done", "chat.error")
        if event.type != "chat.stream":
            return streamed, event
        streamed += event.payload["delta"]


async def shown(phone):
    """The files of an answer, and the event that ended it."""
    files = []
    while (event := await phone.expect("chat.file", "chat.done", "chat.error")).type == "chat.file":
        files.append(event.payload)
    return files, event


class Tablet(Phone):
    """A device, which keeps its keys in a file."""

    def __init__(self, link, state):
        self.client = Client("phone", link, state=state, name="Tablet", proxy=None)


async def device_link(state, relay):
    """The link by which a phone becomes a device, as soon as the relay has told that it knows devices."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            shown = coralmux("link", "--relay", relay, "--state", str(state), "--qr", "none").stdout
            if found := re.search(r"^ +(openclaw://pair\S+&a=\S+)$", shown, re.MULTILINE):
                return Link.parse(found[1])
            await asyncio.sleep(0.05)
