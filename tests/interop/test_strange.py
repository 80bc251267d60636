"""Odd messages from a peer, bypassing a relay that would refuse some of them: none ends a connection or a process."""

import asyncio
import contextlib
import json
import sys

import pytest
from websockets.asyncio.server import serve

from agents import Agent, Process
from coralmux import wire
from relay import ROOT

TOKEN = "oc_pair_" + "0" * 32
DEEP = "[" * 50_000 + "]" * 50_000
ENVELOPES = [
    '{"type":"chat.send","type":"chat.send","id":"a","payload":{"text":"x"}}',
    '{"type":"chat.send","id":"a","id":"b","payload":{"text":"x"}}',
    '{"type":"chat.send","id":"a","payload":{"text":"x"},"payload":{"text":"y"}}',
    '{"type":"chat.send\\ud83e","id":"a","payload":{"text":"x"}}',
    '{"type":["chat.send"],"id":"a"}',
    '{"type":"chat.send","id":{}}',
    '{"type":"chat.error","payload":[1]}',
    '{"type":"chat.error","payload":{"code":1e999,"ref":{},"retry_after_ms":"soon"}}',
    '{"type":"status","payload":"x"}',
    '{"type":"status"}',
    '{"type":"key_exchange","payload":{"pubkey":"\\ud83e"}}',
    '{"type":"made.up","payload":' + DEEP + "}",
    '{"type":"chat.cancel","payload":{"chat_id":[]}}',
    '{"type":"chat.history","payload":{"chat_id":"\\ud83e","limit":1e999}}',
    "[]",
    "null",
    "no json",
    "",
    '{"type":"chat.send","payload":{"text":NaN}}',
]
# What is answered, and with which words in it.
QUESTIONS = [
    ('{"text":"half \\ud83e of a pair"}', "half \ufffd of a pair"),
    ('{"text":"\\ud83e\\udd80 whole","x":"\\udd80\\ud83e"}', "\U0001f980 whole"),
    ('{"text":"numbers","n":1e999,"m":-1e999,"k":' + "9" * 5000 + "}", "numbers"),
    ('{"text":"twice","x":1,"x":{"\\ud83e":2}}', "twice"),
    ('{"text":"escapes \\u001b[2J"}', "escapes"),
    ('{"text":7}', "text"),
    ('{"text":null,"images":null}', "text"),
    ("[1]", ""),
]


class ScriptedRelay:
    """Lets one agent in, and passes on what the test writes."""

    async def __aenter__(self):
        self.connections, self.heard = 0, asyncio.Queue()
        self.server = await serve(self.attend, "127.0.0.1", 0, max_size=None)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def attend(self, ws):
        self.connections += 1
        await ws.recv()
        await ws.send('{"type":"auth.ok","payload":{"paired":true,"daily_quota_bytes":1e999,"daily_used_bytes":"x"}}')
        self.ws = ws
        with contextlib.suppress(Exception):
            async for text in ws:
                await self.heard.put(json.loads(text))

    async def end_of(self, question):
        await self.ws.send(question)
        async with asyncio.timeout(20):
            while (message := await self.heard.get())["type"] not in ("chat.done", "chat.error"):
                pass
        return json.dumps(message["payload"], ensure_ascii=False)


@pytest.mark.parametrize("make", ["rust", "python"])
async def test_a_strange_message_costs_itself_and_nothing_else(tmp_path, make):
    async with ScriptedRelay() as relay:
        if make == "rust":
            agent = Agent(tmp_path, relay.url, "--echo", "--e2e", "1", "--token", TOKEN)
        else:
            command = [sys.executable, str(ROOT / "clients/python/agent.py"), relay.url + "/ws", TOKEN]
            agent = Process(tmp_path, command, {"NO_PROXY": "*"})
        try:
            async with asyncio.timeout(20):
                assert (await relay.heard.get())["type"] == "key_exchange"
            for envelope in ENVELOPES:
                await relay.ws.send(envelope)
                end = await relay.end_of('{"type":"chat.send","id":"q","payload":{"text":"still there"}}')
                while "still there" not in end:  # what the strange one has earned
                    async with asyncio.timeout(20):
                        end = json.dumps((await relay.heard.get())["payload"])
            for payload, words in QUESTIONS:
                end = await relay.end_of('{"type":"chat.send","id":"q","payload":' + payload + "}")
                assert words in end, (payload, end)
            assert "\x1b" not in agent.output()
            assert relay.connections == 1 and agent.process.poll() is None, agent.output()
        finally:
            agent.kill()


def test_numbers_that_are_none_are_null_for_the_python_client():
    text = '{"a": NaN, "b": [Infinity, -Infinity], "c": "NaN"}'
    assert wire.loads(text) == {"a": None, "b": [None, None], "c": "NaN"}
    for text in ("NaNs", "[--Infinity]", "{NaN: 1}"):
        with pytest.raises(ValueError):
            wire.loads(text)
