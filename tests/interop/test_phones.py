"""Other WebSocket libraries as phones, over the real relay: see phones.py."""

import asyncio
import contextlib
import json

import pytest

import phones
from client import Client, envelope

TIMEOUT = 120


async def echo(relay, token):
    """An agent that answers each question with three pieces and its text. Yields the lengths that it was asked."""
    agent = await Client.authed(relay, token, "agent")
    lengths = []

    async def answer():
        async for message in agent.ws:
            message = json.loads(message)
            if message["type"] != "chat.send":
                continue
            text = message["payload"]["text"]
            lengths.append(len(text))
            for seq in (1, 2, 3):
                await agent.ws.send(json.dumps(envelope("chat.stream", {"delta": "piece", "seq": seq})))
            await agent.ws.send(json.dumps(envelope("chat.done", {"full_text": text}), separators=(",", ":")))

    return agent, lengths, asyncio.create_task(answer())


@pytest.mark.parametrize("library", phones.tried(), ids=lambda library: library.key)
async def test_texts_of_every_size_go_both_ways(relay, library):
    versions = await asyncio.to_thread(phones.install, library)
    command = await asyncio.to_thread(library.command, library)
    token = await relay.token()
    agent, lengths, task = await echo(relay, token)
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), relay.url, token, *map(str, phones.SIZES),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=library.folder,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                said, complained = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert said.decode().strip().endswith("ok") and process.returncode == 0, (said[-2000:], complained[-4000:])
        assert lengths == list(phones.SIZES)
    finally:
        task.cancel()
        await agent.ws.close()
    phones.record(library, versions)
