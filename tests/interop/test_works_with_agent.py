"""What is behind coralmux-agent, agents of the Agent Client Protocol and servers, with their own packages: phone, real relay,
coralmux-agent, agent, fake AI server. Tried by `make works-with` alone, for they are large. See works_with.py and setups.py."""

import asyncio
import base64
import contextlib
import json
import os

import pytest
import pytest_asyncio

from agents import Agent, Phone
from coralmux import Protection
from fake_ai import FakeAi, seen
from setups import SETUPS, install, served
from test_works_with import CANCEL_TIMEOUT, png
from works_with import BEHIND_THE_AGENT, record

is_tried = os.environ.get("WORKS_WITH") == "all"
START_TIMEOUT, TIMEOUT = 240, 150  # seconds, until the first question is answered, and any other
pytestmark = [
    pytest.mark.skipif(not is_tried, reason="make works-with tries it"),
    pytest.mark.asyncio(loop_scope="module"),
]
AGENTS = [pytest.param(one, marks=pytest.mark.xdist_group(one.program), id=one.program) for one in BEHIND_THE_AGENT]


class Run:
    def __init__(self, described, installed, shell, ai, phone):
        self.described, self.shell, self.ai, self.phone = described, shell, ai, phone
        self.python, self.versions = installed

    async def ask(self, text, chat, answer=None, **more):
        """One question: activity, the questions to the person, and the event that ended the answer."""
        return await self.told(await self.phone.ask(text, chat_id=chat, asks=1, **more), answer)

    async def told(self, asked_as, answer=None, timeout=TIMEOUT):
        """What is told of the question that was asked with this id."""
        doing, asked = [], []
        async with asyncio.timeout(timeout):
            async for event in self.phone.client:
                if event.payload is None or event.payload.get("ref") != asked_as or event.type == "chat.stream":
                    continue
                if event.type == "chat.tool_status":
                    doing.append(event.payload)
                elif event.type == "chat.ask":
                    asked.append(event.payload)
                    [chosen] = [one["id"] for one in event.payload["options"] if one["kind"] == (answer or "allow_once")]
                    await self.phone.client.send("chat.answer", {"ask": event.payload["ask"], "option": chosen})
                elif event.type in ("chat.done", "chat.error"):
                    return doing, asked, event

    def tool(self, file):
        command = f"touch {file}"
        described = {
            "run_shell_command": {"command": command, "description": "Make a file", "is_background": False},
            "exec_command": {"cmd": command, "sandbox_permissions": "require_escalated", "justification": f"May I {command}?"},
        }
        arguments = json.dumps(described.get(self.shell, {"command": command}))
        return f"TOOL:{self.shell} TOOLARGS:{arguments}"

    def skip_what_it_lacks(self, check):
        if reason := self.described.lacks.get(check):
            pytest.skip(reason)

    def passed(self, check):
        record(self.described, check, self.python, self.versions)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=AGENTS)
async def run(request, relay, tmp_path_factory):
    described = request.param
    installed, versions = await asyncio.to_thread(install, described)
    folder = tmp_path_factory.mktemp("works-with")
    async with contextlib.AsyncExitStack() as stack:
        ai = await stack.enter_async_context(FakeAi())
        setup = SETUPS[described.program](folder, installed, ai)
        server = served(setup, folder)
        await asyncio.to_thread(stack.enter_context, server)
        url = f"ws://127.0.0.1:{relay.port}"
        agent = Agent(folder, url, *setup.flags, env={"HOME": str(folder)} | setup.env)
        stack.callback(agent.kill)
        link = await asyncio.to_thread(agent.link)
        phone = await stack.enter_async_context(Phone(link))
        run = Run(described, (installed, versions), setup.shell, ai, phone)
        await run.told(await phone.ask("are you there", chat_id="start"), timeout=START_TIMEOUT)
        yield run
        if request.session.testsfailed:
            print(agent.output()[-6000:])
        await asyncio.to_thread(agent.stop)  # with its program, which would outlive a kill


async def test_text_streams(run):
    _, _, end = await run.ask("one two three four five", "text")
    assert end.type == "chat.done" and "five four three two one" in end.payload["full_text"], end
    assert end.protection is Protection.VERIFIED
    run.passed("text")


async def test_an_image_is_seen(run):
    run.skip_what_it_lacks("image")
    picture = png()
    images = [{"mime": "image/png", "data": base64.b64encode(picture).decode()}]
    _, _, end = await run.ask("look", "image", images=images)
    assert end.type == "chat.done" and "[image:image/" in end.payload["full_text"], (end, seen("image/png", picture))
    run.passed("image")


async def test_a_tools_work_is_told_and_what_it_needs_is_asked(run, tmp_path):
    run.skip_what_it_lacks("tool")
    doing, asked, end = await run.ask(run.tool(tmp_path / "made"), "tool")
    assert end.type == "chat.done" and (tmp_path / "made").exists(), end
    assert doing[-1]["status"] == "done" and run.shell in str(doing) or "made" in str(doing), doing
    run.passed("tool")
    run.skip_what_it_lacks("question")
    assert "made" in asked[0]["text"] and asked[0]["options"]
    await run.ask(run.tool(tmp_path / "not-made"), "tool", "reject_once")
    assert not (tmp_path / "not-made").exists()
    run.passed("question")


async def test_a_conversation_is_remembered_and_no_other(run):
    run.skip_what_it_lacks("memory")
    await run.ask("my name is Cora", "memory")
    await run.ask("what is it", "memory")
    remembered = str(run.ai.requests[-1])
    await run.ask("what is it", "another")
    assert "my name is Cora" in remembered and "my name is Cora" not in str(run.ai.requests[-1])
    run.passed("memory")


async def test_stop_stops_the_model(run):
    run.skip_what_it_lacks("cancel")
    asked = await run.phone.ask("SLOW", chat_id="cancel", asks=1)
    async with asyncio.timeout(TIMEOUT):
        while not run.ai.slow:  # some say something of their own first
            await run.phone.expect("chat.stream")
    # Some ask for a title of the conversation beside the answer, and let that be.
    in_progress = run.ai.slow
    await run.phone.client.send("chat.cancel", {"chat_id": "cancel"})
    _, _, end = await run.told(asked)
    assert end.payload["cancelled"] is True
    async with asyncio.timeout(CANCEL_TIMEOUT):
        while run.ai.slow >= in_progress:
            await asyncio.sleep(0.1)
    run.passed("cancel")


async def test_a_failure_of_the_model_is_told_and_the_next_question_is_answered(run):
    run.skip_what_it_lacks("error")
    _, _, end = await run.ask("FAIL", "error")
    words = end.payload.get("message") or end.payload["full_text"]
    assert words and "sk-abcdefghijklmnop" not in words, end
    _, _, end = await run.ask("once more", "error")
    assert end.type == "chat.done" and "more once" in end.payload["full_text"], end
    run.passed("error")
