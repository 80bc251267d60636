"""coralmux-mcp, started by the official package's own client, with a phone at the other end of a real relay."""

import asyncio
import json
import pathlib
import re
import subprocess

import pytest

from agents import Phone
from bots import answered
from coralmux import Link, Protection
from environments import environment
from works_with import MCP, PROGRAMS, record

TIMEOUT = 60


class McpClient:
    """The client's program, and what it says."""

    def __init__(self, process):
        self.process = process

    async def call(self, tool, **arguments):
        self.process.stdin.write(json.dumps({"tool": tool, "arguments": arguments}).encode() + b"\n")
        await self.process.stdin.drain()

    async def said(self):
        async with asyncio.timeout(TIMEOUT):
            line = await self.process.stdout.readline()
        assert line, (await self.process.stderr.read()).decode()
        return json.loads(line)


@pytest.fixture
async def start(relay, tmp_path):
    """Starts clients of one MCP server's command, and gives the link of its pairing."""
    python = pathlib.Path(await asyncio.to_thread(environment, "mcp", "mcp"))
    server, url, started = str(python.with_name("coralmux-mcp")), f"ws://127.0.0.1:{relay.port}", []
    flags = ["--relay", url, "--state", str(tmp_path / "state.json")]

    async def link():
        command = [server, "link", *flags, "--qr", "none"]
        shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=TIMEOUT)
        return Link.parse(re.search(r"^ +(openclaw://pair\S+)$", shown.stdout, re.MULTILINE)[1])

    async def client():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [str(python), str(PROGRAMS / "mcp_client.py"), server, *flags]
        started.append(await asyncio.create_subprocess_exec(*command, **pipes))
        client = McpClient(started[-1])
        assert await client.said() == ["ask_human", "notify"]
        return client

    yield link, client, str(python)
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_programs_ask_and_tell_the_owner_of_a_phone(start):
    link, start_client, python = start
    pairing = await link()
    client = await start_client()
    async with Phone(pairing) as phone:
        await client.call("notify", message="The build is green.")
        told = (await answered(phone))[1]
        assert (told.payload["full_text"], told.payload["unasked"]) == ("The build is green.", True)
        assert told.protection is Protection.VERIFIED
        assert await client.said() == {"error": False, "text": "Sent."}

        await client.call("ask_human", question="Deploy?", options=["Now", "Later"])
        asked = (await answered(phone))[1].payload
        assert (asked["full_text"], asked["unasked"]) == ("Deploy?\n1. Now\n2. Later", True)
        replied = await phone.ask("2")
        assert await client.said() == {"error": False, "text": "Later"}
        assert (await answered(phone))[1].payload == {"full_text": "Thank you.", "ref": replied}

        await phone.ask("Hello?", asks=1)
        assert "programs ask here" in (await answered(phone))[1].payload["full_text"]
        await client.call("ask_human", question="Which?", options=["One", "Two"])
        await client.call("ask_human", question="Why?")
        shown = [(await phone.expect("chat.ask")).payload for _ in range(2)]
        by_text = {ask["text"]: ask["ask"] for ask in shown}
        await phone.client.send("chat.answer", {"ask": by_text["Why?"], "text": "Because."})
        assert (await client.said())["text"] == "Because."
        await phone.client.send("chat.answer", {"ask": by_text["Which?"], "option": "1"})
        assert (await client.said())["text"] == "One"

        await client.call("ask_human", question="Quick?", timeout_s=1)
        assert "no reply within 1 s" in (await client.said())["text"]
        await client.call("ask_human", question="x", options=["same", "same"])
        refused = await client.said()
        assert refused["error"] and "two options" in refused["text"]
    record(MCP, "question", python)


async def test_what_cannot_be_reached_is_told_where_it_is_asked(start):
    link, start_client, _ = start
    await link()
    await start_client()
    second = await start_client()
    await second.call("notify", message="x")
    refused = await second.said()
    assert refused["error"] and "another program uses" in refused["text"], "the first one has the pairing"


async def test_nothing_is_left_behind_when_the_client_ends(start):
    link, start_client, _ = start
    pairing = await link()
    client = await start_client()
    async with Phone(pairing) as phone:
        await client.call("ask_human", question="Still there?")
        await answered(phone)
        client.process.stdin.close()
        async with asyncio.timeout(TIMEOUT):
            await client.process.wait()
        while phone.client.paired:
            await phone.expect("status")
    again = await start_client()
    await again.call("notify", message="I am back.")
    assert "is told when it comes" in (await again.said())["text"], "its pairing is free again"
    async with Phone(pairing) as phone:
        assert (await answered(phone))[1].payload["full_text"] == "I am back."
