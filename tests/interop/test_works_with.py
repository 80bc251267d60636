"""Frameworks with their own packages: phone, real relay, adapter, framework, fake AI server. See works_with.py."""

import asyncio
import base64
import contextlib
import struct
import time
import zlib

import pytest
import pytest_asyncio

from agents import Phone
from bots import Bot
from coralmux import Protection
from environments import environment
from fake_ai import FakeAi, seen
from works_with import PROGRAMS, forget, record, tried

TIMEOUT = 60
CANCEL_TIMEOUT = 10


def png():
    """A picture of four pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0\xff\0\0\0\xff\0" * 1 + b"\0\0\0\xff\xff\xff\xff"
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Run:
    """A framework's agent, the AI server behind it, and a paired phone."""

    def __init__(self, framework, python, ai, bot, phone):
        self.framework, self.python, self.ai, self.bot, self.phone = framework, python, ai, bot, phone
        self.failed = set()  # checks, some of which have several tests

    async def ask(self, text, chat, **more):
        """One question: the pieces, the activity, and the event that ended the answer."""
        await self.phone.ask(text, chat_id=chat, **more)
        return await self.told()

    async def told(self):
        pieces, tools = [], []
        async with asyncio.timeout(TIMEOUT):
            while True:
                event = await self.phone.expect("chat.stream", "chat.tool_status", "chat.done", "chat.error")
                if event.type == "chat.stream":
                    pieces.append(event.payload["delta"])
                elif event.type == "chat.tool_status":
                    tools.append((event.payload.get("tool"), event.payload["status"]))
                else:
                    return pieces, tools, event

    def passed(self, check):
        if check not in self.failed:
            record(self.framework, check, self.python)

    def failed_in(self, check):
        self.failed.add(check)
        forget(self.framework, check)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=tried(), ids=lambda framework: framework.program)
async def run(request, relay, tmp_path_factory):
    framework = request.param
    python = await asyncio.to_thread(environment, framework.adapter.removeprefix("coralmux."), *framework.packages)
    folder = tmp_path_factory.mktemp(framework.program)
    async with contextlib.AsyncExitStack() as stack:
        ai = await stack.enter_async_context(FakeAi())
        env = {"FAKE_AI": ai.url, "HOME": str(folder), "OPENAI_API_KEY": "x", "OTEL_SDK_DISABLED": "true"}
        url = f"ws://127.0.0.1:{relay.port}"
        bot = Bot(folder, url, python=python, script=PROGRAMS / framework.program, env=env)
        stack.callback(bot.kill)
        link = await asyncio.to_thread(bot.link)
        phone = await stack.enter_async_context(Phone(link))
        yield Run(framework, python, ai, bot, phone)
        bot.stop()


def check(name):
    """A test that is skipped where the framework cannot do it, and is recorded where it has passed."""

    def decorate(test):
        @pytest.mark.asyncio(loop_scope="module")
        async def checked(run):
            if reason := run.framework.lacks.get(name):
                pytest.skip(reason)
            try:
                await test(run)
            except BaseException:
                run.failed_in(name)
                print(run.bot.output()[-6000:])
                raise
            run.passed(name)

        checked.__name__ = test.__name__
        return checked

    return decorate


@check("text")
async def test_text_streams(run):
    pieces, _, end = await run.ask("one two three four five six seven eight nine ten", "text")
    assert end.type == "chat.done", end
    # CrewAI puts the question into a prompt of its own.
    assert "ten nine eight seven six five four three two one" in end.payload["full_text"]
    assert end.protection is Protection.VERIFIED and len(pieces) >= 2
    assert end.payload["full_text"].startswith("".join(pieces))


@check("image")
async def test_an_image_is_seen(run):
    picture = png()
    images = [{"mime": "image/png", "data": base64.b64encode(picture).decode()}]
    _, _, end = await run.ask("look", "image", images=images)
    assert end.type == "chat.done", end
    is_same = seen("image/png", picture) in end.payload["full_text"]
    assert is_same or (run.framework.adapter == "coralmux.autogen" and "[image:image/" in end.payload["full_text"])


@check("tool")
async def test_a_tools_work_is_told(run):
    _, tools, end = await run.ask('TOOL:add TOOLARGS:{"a": 2, "b": 3}', "tool")
    assert end.type == "chat.done" and "tool said 5" in end.payload["full_text"], end
    assert ("add", "running") in tools
    if run.framework.adapter != "coralmux.crewai":
        assert ("add", "done") in tools


@check("memory")
async def test_a_conversation_is_remembered_and_no_other(run):
    await run.ask("my name is Cora", "memory")
    await run.ask("what is it", "memory")
    remembered = str(run.ai.requests[-1])
    await run.ask("what is it", "another")
    assert "my name is Cora" in remembered and "my name is Cora" not in str(run.ai.requests[-1])


@check("question")
async def test_the_person_is_asked(run):
    for chat, asks in (("plain", {}), ("buttons", {"asks": 1})):
        await run.phone.ask('TOOL:consent TOOLARGS:{"what": "dance"}', chat_id=chat, **asks)
        if asks:
            async with asyncio.timeout(TIMEOUT):
                shown = (await run.phone.expect("chat.ask")).payload
            assert "dance" in shown["text"]
            reply = {"option": "1"} if shown["options"] else {"text": "Yes"}
            await run.phone.client.send("chat.answer", {"ask": shown["ask"], "chat_id": chat, **reply})
        else:
            _, _, end = await run.told()
            assert "dance" in end.payload["full_text"], end
            await run.phone.ask("yes", chat_id=chat)
        _, _, end = await run.told()
        said = end.payload["full_text"]
        assert end.type == "chat.done" and said.casefold().endswith(("tool said yes", "tool said did dance")), end


@check("cancel")
async def test_a_cancel_ends_the_models_call(run):
    await run.phone.ask("SLOW", chat_id="cancel")
    async with asyncio.timeout(TIMEOUT):
        await run.phone.expect("chat.stream")
    assert run.ai.slow == 1
    await run.phone.client.send("chat.cancel", {"chat_id": "cancel"})
    _, _, end = await run.told()
    assert end.payload["cancelled"] is True
    until = time.monotonic() + CANCEL_TIMEOUT
    while run.ai.slow:
        assert time.monotonic() < until, "the AI server still answers"
        await asyncio.sleep(0.02)
    # A crew is told the conversation in one text, which would make the AI server slow again.
    is_crew = run.framework.adapter == "coralmux.crewai"
    _, _, end = await run.ask("a b", "after a cancel" if is_crew else "cancel")
    assert end.type == "chat.done" and "b a" in end.payload["full_text"], "the conversation goes on"


@check("cancel")
async def test_an_answer_that_is_ended_between_two_pieces_ends_the_models_call(run):
    if run.framework.program == "langgraph_remote.py":
        pytest.skip("its model is called by a server, which ends with the program")
    command = [run.python, str(PROGRAMS / "closes.py"), str(PROGRAMS / run.framework.program)]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    closes = await asyncio.create_subprocess_exec(*command, env=run.bot.environment, **pipes)
    try:
        async with asyncio.timeout(TIMEOUT):
            while "closed" not in (line := (await closes.stdout.readline()).decode()):
                assert line, "it has ended"
        until = time.monotonic() + CANCEL_TIMEOUT
        while run.ai.slow:
            assert time.monotonic() < until, "the AI server still answers"
            await asyncio.sleep(0.02)
    finally:
        closes.kill()
        await closes.wait()


@check("error")
async def test_a_failure_is_told_without_paths_and_keys(run):
    _, _, end = await run.ask("FAIL", "error")
    assert end.type == "chat.error", end
    assert "sk-" not in end.payload["message"] and "/srv" not in end.payload["message"]
    _, _, end = await run.ask("a b", "after an error")
    assert "b a" in end.payload["full_text"]
