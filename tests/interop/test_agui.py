"""coralmux-agent with a server of AG-UI behind it, whose events are written by the protocol's own Python package."""

import asyncio
import json

import pytest
from ag_ui.core import (
    EventType,
    Interrupt,
    MessagesSnapshotEvent,
    ReasoningMessageContentEvent,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)
from ag_ui.encoder import EventEncoder

from agents import AiServer, Phone, head
from test_acp import ask, finish

ENCODER = EventEncoder()


def events(*all_events):
    return "".join(map(ENCODER.encode, all_events)).encode()


def started(run):
    return RunStartedEvent(thread_id=run.thread_id, run_id=run.run_id)


def finished(run, **more):
    return RunFinishedEvent(thread_id=run.thread_id, run_id=run.run_id, **more)


def said(*deltas, name="m1"):
    return [
        TextMessageStartEvent(message_id=name, role="assistant"),
        *[TextMessageContentEvent(message_id=name, delta=delta) for delta in deltas],
        TextMessageEndEvent(message_id=name),
    ]


def tool(call, name, result):
    return [
        ToolCallStartEvent(tool_call_id=call, tool_call_name=name),
        ToolCallArgsEvent(tool_call_id=call, delta='{"a":'),
        ToolCallArgsEvent(tool_call_id=call, delta="1}"),
        ToolCallEndEvent(tool_call_id=call),
        *([ToolCallResultEvent(message_id=f"r-{call}", tool_call_id=call, content=result)] if result else []),
    ]


def serve(*answers):
    """A server whose runs are answered one after the other by these functions of the run's input, the last one for ever."""
    left = list(answers)

    async def answer(body, write):
        run = RunAgentInput.model_validate(body)
        await write(head() + events(started(run)))
        await (left.pop(0) if len(left) > 1 else left[0])(run, write)

    return AiServer(answer)


async def echo(run, write):
    await write(events(*said("You ", "said: ", str(run.messages[-1].content)), finished(run)))


async def test_text_is_streamed_and_the_conversation_goes_along(start_agent):
    async with serve(echo) as server:
        agent = start_agent("--ag-ui", server.url, env={"OPENAI_API_KEY": "k-very-secret"})
        async with Phone(agent.link()) as phone:
            _, streamed, end = await ask(phone, "hi", chat_id="c")
            assert streamed == end.payload["full_text"] == "You said: hi"
            image = {"mime": "image/png", "data": "iVBORw0KGgo="}
            await ask(phone, "look", images=[image], chat_id="c")
            await ask(phone, "elsewhere")
    (first_head, first), (_, second), (_, third) = server.requests
    assert "authorization: bearer k-very-secret" in first_head.lower()
    assert [(m["role"], m["content"]) for m in second["messages"][:2]] == [("user", "hi"), ("assistant", "You said: hi")]
    source = {"type": "data", "value": image["data"], "mimeType": image["mime"]}
    assert second["messages"][2]["content"] == [{"type": "text", "text": "look"}, {"type": "image", "source": source}]
    assert first["threadId"] == second["threadId"] != third["threadId"] and first["threadId"].endswith(":c")
    assert first["runId"] != second["runId"]


async def test_a_server_that_keeps_conversations_is_told_the_newest_turn(start_agent):
    async with serve(echo) as server:
        agent = start_agent("--ag-ui", server.url, "--stateful")
        async with Phone(agent.link()) as phone:
            await ask(phone, "one")
            await ask(phone, "two")
    assert [m["content"] for m in server.requests[1][1]["messages"]] == ["two"]


async def test_tools_and_thoughts_are_activity(start_agent):
    async def work(run, write):
        thought = ReasoningMessageContentEvent(message_id="t", delta="Hm.")
        done = [*said("Let me see.", name="m1"), *tool("c1", "search", "three hits"), *said("Three.", name="m2")]
        await write(events(thought, *done, finished(run)))

    async with serve(work) as server:
        agent = start_agent("--ag-ui", server.url)
        async with Phone(agent.link()) as phone:
            doing, streamed, _ = await ask(phone, "how many?")
    assert streamed == "Let me see.\n\nThree."
    assert [{k: v for k, v in one.items() if k not in ("ref", "message")} for one in doing] == [
        {"status": "thinking", "detail": "Hm."},
        {"status": "running", "tool": "search", "call_id": "c1"},
        {"status": "done", "tool": "search", "call_id": "c1", "detail": "three hits"},
    ]


async def test_what_a_run_is_interrupted_for_is_asked_on_the_phone(start_agent):
    schema = {"type": "object", "properties": {"approved": {"type": "boolean"}}}

    async def interrupt(run, write):
        wanted = Interrupt(id="i1", reason="approval", message="Delete it?", tool_call_id="c1", response_schema=schema)
        outcome = RunFinishedInterruptOutcome(interrupts=[wanted])
        await write(events(*said("First."), *tool("c1", "delete", None), finished(run, outcome=outcome)))

    async def go_on(run, write):
        await write(events(*said(f"It is {run.resume[0].payload}", name="m2"), finished(run)))

    async with serve(interrupt, go_on) as server:
        agent = start_agent("--ag-ui", server.url)
        async with Phone(agent.link()) as phone:
            await phone.ask("delete", asks=1)
            asked = (await phone.expect("chat.ask")).payload
            assert (asked["text"], asked["default"], asked["call_id"]) == ("Delete it?", "No", "c1")
            await phone.client.send("chat.answer", {"ask": asked["ask"], "option": "Yes"})
            _, _, end = await finish(phone)
            assert end.payload["full_text"] == "First.\n\nIt is {'approved': True}"
    resumed = server.requests[1][1]
    assert resumed["resume"] == [{"interruptId": "i1", "status": "resolved", "payload": {"approved": True}}]
    call = {"id": "c1", "type": "function", "function": {"name": "delete", "arguments": '{"a":1}'}}
    assert [(m["role"], m.get("content"), m.get("toolCalls")) for m in resumed["messages"]] == [
        ("user", "delete", None), ("assistant", "First.", None), ("assistant", None, [call]),
    ]  # fmt: skip


async def test_an_answer_that_comes_as_all_messages_is_one(start_agent):
    async def snapshot(run, write):
        messages = [*[m.model_dump() for m in run.messages], {"id": "a", "role": "assistant", "content": "whole"}]
        event = MessagesSnapshotEvent.model_validate({"type": EventType.MESSAGES_SNAPSHOT, "messages": messages})
        await write(events(event, finished(run)))

    async with serve(snapshot) as server:
        agent = start_agent("--ag-ui", server.url)
        async with Phone(agent.link()) as phone:
            assert (await ask(phone, "hi"))[1] == "whole"


async def failing(run, write):
    await write(events(RunErrorEvent(message="no model k-very-secret", code="x")))


async def breaking(run, write):
    await write(events(*said("half")))


async def empty(run, write):
    await write(events(finished(run)))


async def page(_, write):
    await write(b"data: <html>\n\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [(failing, "no model ***"), (breaking, "middle of its answer"), (empty, "empty"), (page, "invalid answer")],
)
async def test_what_is_no_answer_is_told_in_words_and_without_the_key(start_agent, answer, words):
    async with serve(answer) as server:
        agent = start_agent("--ag-ui", server.url, env={"OPENAI_API_KEY": "k-very-secret"})
        async with Phone(agent.link()) as phone:
            _, _, end = await ask(phone, "hi")
            assert end.type == "chat.error" and words in end.payload["message"], end
            assert "very-secret" not in agent.output()


async def test_a_cancelled_run_is_cut_off(start_agent):
    async def endless(run, write):
        await write(events(*said("one ")))
        await asyncio.sleep(60)

    async with serve(endless) as server:
        agent = start_agent("--ag-ui", server.url)
        async with Phone(agent.link()) as phone:
            await phone.ask("count")
            await phone.expect("chat.stream")
            await phone.client.send("chat.cancel", {})
            assert (await finish(phone))[2].payload["cancelled"] is True
            await asyncio.wait_for(server.gone.wait(), 20)


async def test_the_agent_protocol_is_done_in_steps(start_agent):
    steps = [
        {"output": "I look.", "name": "search", "is_last": False, "artifacts": []},
        {"output": "It is done.", "is_last": True, "artifacts": [{"artifact_id": "a", "file_name": "a.txt"}]},
    ]

    async def answer(body, write):
        path = server.requests[-1][0].split()[1]
        paths.append((path, body))
        given = {"task_id": "t-1"} if path == "/ap/v1/agent/tasks" else steps[len(paths) - 2]
        text = json.dumps(given).encode()
        await write(head("201 Created", "application/json", f"Content-Length: {len(text)}") + text)

    paths = []
    async with AiServer(answer) as server:
        agent = start_agent("--agent-protocol", server.url.removesuffix("/v1"))
        async with Phone(agent.link()) as phone:
            doing, streamed, end = await ask(phone, "find it")
            assert streamed == end.payload["full_text"] == "I look.\n\nIt is done.\n\nFiles at the agent: `a.txt`"
            assert [(one["status"], one["tool"]) for one in doing] == [("running", "search")]
            _, _, end = await ask(phone, "", images=[{"mime": "image/png", "data": "iVBORw0KGgo="}])
            assert "text only" in end.payload["message"]
    step = ("/ap/v1/agent/tasks/t-1/steps", {})
    assert paths == [("/ap/v1/agent/tasks", {"input": "find it"}), step, step]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("200 OK", b"{}", "without a name"),
        ("200 OK", b'{"task_id":"../x"}', "without a name"),
        ("200 OK", b"<html><title>Login</title>", "invalid answer: Login"),
        ("422 Unprocessable", b'{"detail":"no input"}', "no input"),
    ],
)
async def test_what_is_no_task_is_told_in_words(start_agent, status, body, words):
    async def answer(_, write):
        await write(head(status, "application/json", f"Content-Length: {len(body)}") + body)

    async with AiServer(answer) as server:
        agent = start_agent("--agent-protocol", server.url)
        async with Phone(agent.link()) as phone:
            _, _, end = await ask(phone, "find it")
            assert end.type == "chat.error" and words in end.payload["message"], end
