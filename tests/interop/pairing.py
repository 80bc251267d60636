"""`pair`, of coralmux-agent or of the Python package, whose person types."""

import asyncio
import contextlib
import re
import subprocess

from agents import TIMEOUT
from coralmux import Link


class Pairing:
    """One command that runs, with what it has said in `output`."""

    def __init__(self, words, env):
        self.words, self.env, self.output = words, env, ""

    async def __aenter__(self):
        pipe = subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.words, env=self.env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        )
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def shows(self, pattern):
        """Waits for what it says; the first group of the pattern, or all that it matches."""
        async with asyncio.timeout(TIMEOUT):
            while not (found := re.search(pattern, self.output)):
                line = await self.process.stdout.readline()
                assert line, self.output
                self.output += line.decode()
        return found[found.lastindex or 0]

    async def link(self):
        return Link.parse(await self.shows(r"(openclaw://\S+)"))

    async def types(self, text):
        """Types this, and reads all that follows; the exit code."""
        self.process.stdin.write(text)
        await self.process.stdin.drain()
        self.output += (await asyncio.wait_for(self.process.stdout.read(), TIMEOUT)).decode()
        return await self.process.wait()
