"""Agents of the Agent Client Protocol with their own packages from npm: phone, real relay, coralmux-agent --acp, agent, fake
AI server. Tried by `make works-with` alone, for they are large. See works_with.py."""

import asyncio
import base64
import contextlib
import json
import os
import subprocess

import pytest
import pytest_asyncio

from agents import Agent, Phone
from environments import FOLDER
from fake_ai import FakeAi, seen
from test_works_with import CANCEL_TIMEOUT, TIMEOUT, png
from works_with import ACP_AGENTS, record

is_tried = os.environ.get("WORKS_WITH") == "all"
pytestmark = [
    pytest.mark.skipif(not is_tried, reason="make works-with tries it"),
    pytest.mark.asyncio(loop_scope="module"),
]
AGENTS = [pytest.param(one, marks=pytest.mark.xdist_group(one.program), id=one.program) for one in ACP_AGENTS]


def install(agent):
    """The folder in which the agent's packages are, newest on the day of the first run; and their versions."""
    folder = FOLDER.with_name("npm") / agent.program
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error", *agent.packages]
        subprocess.run(command, cwd=folder, check=True, timeout=900)
        (folder / "ready").touch()
    modules = folder / "node_modules"
    names = [package.rpartition("@")[0] or package for package in agent.packages]
    return modules, {name: json.loads((modules / name / "package.json").read_text())["version"] for name in names}


def opencode(home, modules, ai):
    models = {"fake-model": {"name": "Fake", "modalities": {"input": ["text", "image"], "output": ["text"]}}}
    options = {"baseURL": ai.url, "apiKey": "x"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "Fake", "options": options, "models": models}
    config = {"provider": {"fake": provider}, "model": "fake/fake-model", "permission": {"bash": "ask"}}
    (home / "opencode.json").write_text(json.dumps(config | {"small_model": "fake/fake-model"}))
    env = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    return f"{modules}/.bin/opencode acp", env, ()


def qwen(home, modules, ai):
    env = {"OPENAI_BASE_URL": ai.url, "OPENAI_API_KEY": "x", "OPENAI_MODEL": "fake-model"}
    return f"{modules}/.bin/qwen --acp --auth-type openai", env, ("--exec-env", "OPENAI_API_KEY")


SETUPS = {"opencode": opencode, "qwen": qwen}
# A shell tool, and what it is asked to do.
TOOLS = {"opencode": "bash", "qwen": "run_shell_command"}


class Run:
    def __init__(self, described, versions, ai, phone):
        self.described, self.versions, self.ai, self.phone = described, versions, ai, phone

    async def ask(self, text, chat, answer=None, **more):
        """One question: activity, the questions to the person, and the event that ended the answer."""
        await self.phone.ask(text, chat_id=chat, asks=1, **more)
        return await self.told(answer)

    async def told(self, answer=None):
        doing, asked = [], []
        async with asyncio.timeout(TIMEOUT):
            while True:
                event = await self.phone.expect("chat.tool_status", "chat.ask", "chat.done", "chat.error")
                if event.type == "chat.tool_status":
                    doing.append(event.payload)
                elif event.type == "chat.ask":
                    asked.append(event.payload)
                    [chosen] = [one["id"] for one in event.payload["options"] if one["kind"] == (answer or "allow_once")]
                    await self.phone.client.send("chat.answer", {"ask": event.payload["ask"], "option": chosen})
                else:
                    return doing, asked, event

    def tool(self, file):
        arguments = json.dumps({"command": f"touch {file}", "description": "Make a file", "is_background": False})
        return f"TOOL:{TOOLS[self.described.program]} TOOLARGS:{arguments}"

    def skip_what_it_lacks(self, check):
        if reason := self.described.lacks.get(check):
            pytest.skip(reason)

    def passed(self, check):
        record(self.described, check, versions=self.versions)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=AGENTS)
async def run(request, relay, tmp_path_factory):
    described = request.param
    modules, versions = await asyncio.to_thread(install, described)
    folder = tmp_path_factory.mktemp(described.program)
    async with contextlib.AsyncExitStack() as stack:
        ai = await stack.enter_async_context(FakeAi())
        command, env, flags = SETUPS[described.program](folder, modules, ai)
        url = f"ws://127.0.0.1:{relay.port}"
        flags = ("--acp", command, "--acp-dir", str(folder), *flags)
        agent = Agent(folder, url, *flags, env={"HOME": str(folder)} | env)
        stack.callback(agent.kill)
        link = await asyncio.to_thread(agent.link)
        phone = await stack.enter_async_context(Phone(link))
        yield Run(described, versions, ai, phone)
        if request.session.testsfailed:
            print(agent.output()[-6000:])


async def test_text_streams(run):
    _, _, end = await run.ask("one two three four five", "text")
    assert end.type == "chat.done" and "five four three two one" in end.payload["full_text"], end
    run.passed("text")


async def test_an_image_is_seen(run):
    run.skip_what_it_lacks("image")
    picture = png()
    images = [{"mime": "image/png", "data": base64.b64encode(picture).decode()}]
    _, _, end = await run.ask("look", "image", images=images)
    assert end.type == "chat.done" and "[image:image/" in end.payload["full_text"], (end, seen("image/png", picture))
    run.passed("image")


async def test_a_tools_work_is_told_and_what_it_needs_is_asked(run, tmp_path):
    doing, asked, end = await run.ask(run.tool(tmp_path / "made"), "tool")
    assert end.type == "chat.done" and (tmp_path / "made").exists(), end
    assert doing[-1]["status"] == "done" and "made" in doing[-1]["message"], doing
    run.passed("tool")
    run.skip_what_it_lacks("question")
    assert "made" in asked[0]["text"] and asked[0]["options"]
    await run.ask(run.tool(tmp_path / "not-made"), "tool", "reject_once")
    assert not (tmp_path / "not-made").exists()
    run.passed("question")


async def test_a_conversation_is_remembered_and_no_other(run):
    await run.ask("my name is Cora", "memory")
    await run.ask("what is it", "memory")
    remembered = str(run.ai.requests[-1])
    await run.ask("what is it", "another")
    assert "my name is Cora" in remembered and "my name is Cora" not in str(run.ai.requests[-1])
    run.passed("memory")


async def test_stop_stops_the_model(run):
    await run.phone.ask("SLOW", chat_id="cancel", asks=1)
    await run.phone.expect("chat.stream")
    # Some ask for a title of the conversation beside the answer, and let that be.
    in_progress = run.ai.slow
    await run.phone.client.send("chat.cancel", {"chat_id": "cancel"})
    _, _, end = await run.told()
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
