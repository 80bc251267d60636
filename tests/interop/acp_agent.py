"""An agent that speaks the Agent Client Protocol by its Python library: it does what it is told. Its only argument is the
folder in which it keeps its sessions, and notes each start."""

import asyncio
import base64
import json
import os
import pathlib
import subprocess
import sys

import acp
from acp.schema import (
    AgentCapabilities,
    PermissionOption,
    PromptCapabilities,
    SessionCapabilities,
    SessionResumeCapabilities,
    ToolCallUpdate,
)

KEPT = pathlib.Path(sys.argv[1])
PNG = b"\x89PNG\r\n" + bytes(100)
OPTIONS = [
    PermissionOption(option_id="once", name="Allow once", kind="allow_once"),
    PermissionOption(option_id="never", name="Reject", kind="reject_once"),
]


class Agent(acp.Agent):
    def __init__(self):
        self.cancelled = {}

    def on_connect(self, connection):
        self.client = connection

    async def initialize(self, protocol_version, **_):
        can = AgentCapabilities(
            load_session="forgetful" not in sys.argv,
            prompt_capabilities=PromptCapabilities(image=True),
            session_capabilities=SessionCapabilities(resume=SessionResumeCapabilities() if "boasts" in sys.argv else None),
        )
        return acp.InitializeResponse(protocol_version=protocol_version, agent_capabilities=can)

    async def new_session(self, cwd, **_):
        session = f"session-{len(list(KEPT.glob('session-*')))}"
        self.keep(session, [])
        return acp.NewSessionResponse(session_id=session)

    async def load_session(self, cwd, session_id, **_):
        for text in self.heard(session_id):
            await self.client.session_update(session_id, acp.update_user_message_text(text))
            await self.client.session_update(session_id, acp.update_agent_message_text("said before"))
        return acp.LoadSessionResponse()

    async def resume_session(self, **_):
        raise acp.RequestError.method_not_found("session/resume")

    async def cancel(self, session_id, **_):
        self.cancelled.setdefault(session_id, asyncio.Event()).set()

    def heard(self, session):
        return json.loads((KEPT / session).read_text())

    def keep(self, session, texts):
        (KEPT / session).write_text(json.dumps(texts))

    async def prompt(self, session_id, prompt, **_):
        self.session = session_id
        texts = [block.text for block in prompt if block.type == "text"]
        images = [f"{block.mime_type} {len(block.data)}" for block in prompt if block.type == "image"]
        self.keep(session_id, self.heard(session_id) + texts)
        does = getattr(self, texts[0].split()[0] if texts else "", None)
        if not does:
            await self.say(f"{session_id} heard {', '.join(self.heard(session_id) + images)}")
            return acp.PromptResponse(stop_reason="end_turn")
        return acp.PromptResponse(stop_reason=await does() or "end_turn")

    async def say(self, text):
        await self.client.session_update(self.session, acp.update_agent_message_text(text))

    async def tell(self, update):
        await self.client.session_update(self.session, update)

    async def work(self):
        await self.tell(acp.update_agent_thought_text("What is there?"))
        await self.say("Let me look.")
        entry = acp.plan_entry("look around", status="in_progress")
        await self.tell(acp.update_plan([entry, acp.plan_entry("think")]))
        await self.tell(acp.start_tool_call("call-1", "Edit notes", kind="edit", status="pending"))
        diff = acp.tool_diff_content("/tmp/notes", "one\nthree", "one\ntwo")
        await self.tell(acp.update_tool_call("call-1", status="completed", content=[diff]))
        await self.tell(acp.start_tool_call("call-2", "make", kind="execute", status="in_progress"))
        await self.tell(acp.update_tool_call("call-2", status="failed"))
        await self.say("It is done.")

    async def draw(self):
        picture = base64.b64encode(PNG).decode()
        await self.say("Here: ")
        await self.tell(acp.update_agent_message(acp.image_block(picture, "image/png", uri="file:///tmp/chart.png")))
        await self.tell(acp.update_agent_message(acp.image_block("no base64", "image/png")))
        blob = acp.embedded_blob_resource("file:///srv/table.bin", base64.b64encode(b"a table").decode(), mime_type="")
        await self.tell(acp.update_agent_message(acp.resource_block(blob)))

    async def only(self):
        await self.tell(acp.update_agent_message(acp.image_block(base64.b64encode(PNG).decode(), "image/png")))

    async def request(self, call="call-1"):
        title = "rm -r build"
        await self.tell(acp.start_tool_call(call, title, kind="execute", status="pending"))
        asked = ToolCallUpdate(tool_call_id=call, title=title)
        return await self.client.request_permission(self.session, asked, OPTIONS)

    async def ask(self):
        await self.say("I need to clean up.")
        outcome = (await self.request()).outcome
        await self.say(f"{outcome.outcome} {getattr(outcome, 'option_id', '')}".strip())

    async def withdraw(self):
        asking = asyncio.create_task(self.request())
        await asyncio.sleep(0.2)
        await self.tell(acp.update_tool_call("call-1", status="completed"))
        await self.say((await asking).outcome.outcome)

    async def lose(self):
        asking = asyncio.create_task(self.request())
        await asyncio.sleep(0.2)
        assert not asking.done()
        os._exit(3)

    async def die(self):
        await self.say("I am")
        await asyncio.sleep(0.2)
        os.write(1, b'{"jsonrpc":"2.0","method":"session/upd')
        os._exit(3)

    async def hang(self):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        (KEPT / "pids").write_text(f"{os.getpid()} {child.pid}")
        await self.say("wait")
        await asyncio.sleep(1000)

    async def count(self):
        stop = self.cancelled.setdefault(self.session, asyncio.Event())
        stop.clear()
        await self.say("one ")
        await stop.wait()
        (KEPT / "cancelled").touch()
        return "cancelled"

    async def stubborn(self):
        stop = self.cancelled.setdefault(self.session, asyncio.Event())
        await self.say("one ")
        await stop.wait()
        await self.say("two ")
        (KEPT / "permitted").write_text((await self.request()).outcome.outcome)

    async def deaf(self):
        (KEPT / "pids").write_text(str(os.getpid()))
        await self.say("one ")
        await asyncio.sleep(1000)

    async def flood(self):
        for number in range(20_000):
            await self.say("0123456789")

    async def endless(self):
        stop = self.cancelled.setdefault(self.session, asyncio.Event())
        while not stop.is_set():
            await self.say("0123456789" * 1000)
            await self.tell(acp.start_tool_call("call-1", f"look {os.urandom(4)}", kind="read", status="in_progress"))
        (KEPT / "cancelled").touch()

    async def nothing(self):
        pass

    async def silently(self):
        await self.request()

    async def long(self):
        await self.say("as far as")
        return "max_tokens"

    async def chatter(self):
        print("a log line on standard output", flush=True)
        await self.say("said")

    async def fail(self):
        raise acp.RequestError(-32603, "Internal error", {"details": "no model for sk-abcdefghijklmnop"})


with open(KEPT / "starts", "a") as starts:
    starts.write("start\n")
asyncio.run(acp.run_agent(Agent()))
