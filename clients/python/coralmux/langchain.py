"""LangChain and LangGraph: a Runnable, a graph or a remote graph as what answers.

from coralmux import Agent
from coralmux.langchain import answers

Agent("wss://relay.example.com").serve(answers(graph))
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

from .asks import Option
from .chats import AnswerError
from .pieces import Answers, Piece, Tool, let_go
from .question import Question, Turn

MakeInput = Callable[[Question], Any]
APPROVE, REJECT = Option("Approve", "allow_once"), Option("Reject", "reject_once")


def answers(runnable: Any, *, make_input: MakeInput | None = None) -> Answers:
    """What answers with a LangChain Runnable, a LangGraph graph or a RemoteGraph.

    - A graph whose state has `messages` gets the newest turn if it has a checkpointer (or a server that keeps threads):
      the conversation is its thread. Without one it gets the whole conversation. `interrupt(value)` asks the person:
      the value is a text, or a dict with `question` and perhaps `options`, or what LangChain's human-in-the-loop
      middleware asks.
    - Any other Runnable gets a list of messages, and the conversation as `session_id`.
    - `make_input` makes the input of a question, if it is something else.
    """
    if hasattr(runnable, "aget_state"):
        graph = _Graph(runnable, make_input)
        return graph.answer
    return lambda question: _stream(runnable, (make_input or messages)(question), question.chat_id)


def messages(question: Question) -> list[Any]:
    """The conversation so far and the question, as LangChain's messages."""
    return [*map(_message, question.history), newest(question)]


def newest(question: Question) -> Any:
    """The question as LangChain's message."""
    return _message(Turn("user", question.text, question.images))


def _message(turn: Turn) -> Any:
    from langchain_core.messages import AIMessage, HumanMessage

    if turn.role == "assistant":
        return AIMessage(turn.text)
    if not turn.images:
        return HumanMessage(turn.text)
    images = [{"type": "image", "base64": image.base64, "mime_type": image.mime} for image in turn.images]
    return HumanMessage([{"type": "text", "text": turn.text}, *images])


def text_of(chunk: Any) -> str:
    """The text of what a Runnable or a graph streams: a text, a message, or a dict that has one of them."""
    if isinstance(chunk, str):
        return chunk
    if isinstance(chunk, list):  # blocks of content, of which only some are text
        return "".join(text_of(block) for block in chunk if isinstance(block, str) or _field(block, "type") == "text")
    for name in ("text", "content", "answer", "output"):
        if (found := _field(chunk, name)) and not callable(found):
            return text_of(found)
    return ""


def _field(value: Any, name: str) -> Any:
    """Of a message, which is an object here and a dict where it comes from a server."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


async def _stream(runnable: Any, given: Any, chat: str) -> AsyncGenerator[Piece]:
    stream = runnable.astream(given, {"configurable": {"session_id": chat, "thread_id": chat}})
    try:
        async for chunk in stream:
            yield text_of(chunk)
    finally:
        await let_go(stream)


class _Graph:
    """A graph, here or on a server."""

    def __init__(self, graph: Any, make_input: MakeInput | None) -> None:
        self.graph, self.make_input = graph, make_input
        self.is_remote = not hasattr(graph, "checkpointer")
        self.keeps = self.is_remote or bool(graph.checkpointer)
        self.known: set[str] = set()  # threads that this process has run

    async def answer(self, question: Question) -> AsyncGenerator[Piece]:
        from langgraph.types import Command

        # Servers take UUIDs alone.
        name = f"coralmux:{question.chat_id}"
        thread = str(uuid.uuid5(uuid.NAMESPACE_URL, name)) if self.is_remote else question.chat_id or "default"
        config = {"configurable": {"thread_id": thread}}
        given = await self._input(question, thread, config)
        while given is not None:
            interrupts: list[Any] = []
            async for piece in self._run(given, config, interrupts):
                yield piece
            given = None
            if interrupts:
                replies = [await _ask(question, _field(interrupt, "value")) for interrupt in interrupts]
                ids = [_field(interrupt, "id") for interrupt in interrupts]
                given = Command(resume=dict(zip(ids, replies, strict=True)) if len(ids) > 1 else replies[0])

    async def _input(self, question: Question, thread: str, config: dict[str, Any]) -> Any:
        from langgraph.types import Command

        is_new = thread not in self.known
        self.known.add(thread)
        if self.keeps and is_new and not self.is_remote:
            # It was asked before this process was started; an older question of this process was cancelled.
            state = await self.graph.aget_state(config)
            if state.interrupts and not _requests(state.interrupts[0].value):
                return Command(resume=question.text)
        if self.make_input:
            return self.make_input(question)
        return {"messages": [newest(question)] if self.keeps else messages(question)}

    async def _run(self, given: Any, config: dict[str, Any], interrupts: list[Any]) -> AsyncGenerator[Piece]:
        tools: dict[str, str] = {}
        last = None  # the message that was streamed last
        more = {"on_disconnect": "cancel"} if self.is_remote else {}  # else a server goes on with what nobody hears
        stream = self.graph.astream(given, config, stream_mode=["messages", "updates"], **more)
        try:
            async for mode, event, *_ in stream:
                if mode == "updates":
                    interrupts += (_field(event, "__interrupt__") or ()) if isinstance(event, dict) else ()
                elif mode != "messages":
                    continue
                elif (kind := _field(event[0], "type")) in ("AIMessageChunk", "ai"):
                    for call in _field(event[0], "tool_call_chunks") or _field(event[0], "tool_calls") or ():
                        if call.get("name") and call.get("id"):
                            tools[call["id"]] = call["name"]
                            yield Tool(call["name"], call_id=call["id"])
                    if text := text_of(_field(event[0], "content")):
                        if last not in (None, _field(event[0], "id")):
                            yield "\n\n"
                        last = _field(event[0], "id")
                        yield text
                elif kind == "tool":
                    call_id = _field(event[0], "tool_call_id") or ""
                    name = _field(event[0], "name") or tools.get(call_id, "tool")
                    yield Tool(name, "error" if _field(event[0], "status") == "error" else "done", call_id=call_id)
        finally:
            await let_go(stream)


def _requests(value: Any) -> list[dict[str, Any]]:
    """The actions that LangChain's human-in-the-loop middleware asks about."""
    return value.get("action_requests") or [] if isinstance(value, dict) else []


async def _ask(question: Question, value: Any) -> Any:
    """What `interrupt(value)` returns. Raises AnswerError where nobody replies."""
    if requests := _requests(value):
        return {"decisions": [await _decide(question, request) for request in requests]}
    text, options = value, ()
    if isinstance(value, dict):
        text = value.get("question") or value.get("text") or value.get("message")
        options = value.get("options") or ()
    reply = await question.ask(text if isinstance(text, str) and text else json.dumps(value, default=str), options)
    if reply is None:
        raise AnswerError("there was no reply to the agent's question")
    return reply


async def _decide(question: Question, request: dict[str, Any]) -> dict[str, str]:
    text = request.get("description") or f"{request.get('name')}\n{json.dumps(request.get('args'), default=str)}"
    reply = await question.ask(text, [APPROVE, REJECT])
    if reply == APPROVE.label:
        return {"type": "approve"}
    return {"type": "reject"} | ({"message": reply} if reply and reply != REJECT.label else {})
