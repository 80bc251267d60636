"""CrewAI: a crew as what answers.

from coralmux import Agent
from coralmux.crewai import answers

Agent("wss://relay.example.com").serve(answers(make_crew))
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from .pieces import Answers, Piece, Tool
from .question import Question


LOOP = "coralmux-crewai"  # the thread that calls models


def inputs(question: Question) -> dict[str, Any]:
    """What tasks can use: `{text}`, and `{history}`, the conversation so far, a line for each turn."""
    return {"text": question.text, "history": "\n".join(f"{turn.role}: {turn.text}" for turn in question.history)}


def answers(make_crew: Callable[[], Any], *, make_inputs: Callable[[Question], dict[str, Any]] = inputs) -> Answers:
    """What answers with a crew: `make_crew` makes one a question. All that its agents say is shown. A tool that asks the
    person does it by `coralmux.ask_in_thread`. After a cancel a tool that is at work goes on, unheard."""

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from crewai.types.streaming import StreamChunkType

        if question.images:
            yield Tool("images", "error", "Crews get no images from here")
        _patch()
        crew, calls = make_crew(), _Calls()
        _calls.set(calls)
        crew.stream = True
        stream = await crew.akickoff(inputs=make_inputs(question))
        who, tool, has_said = None, None, False
        try:
            async for chunk in stream:
                if (chunk.agent_role, chunk.task_name) != who:
                    who = chunk.agent_role, chunk.task_name
                    yield Tool("agent", message=f"{chunk.agent_role} is working")
                    if has_said:
                        yield "\n\n"
                if chunk.chunk_type is StreamChunkType.TOOL_CALL:
                    name = chunk.tool_call and chunk.tool_call.tool_name
                    if name and name != tool:
                        yield Tool(name)
                    tool = name or tool
                elif chunk.content:
                    tool, has_said = None, True
                    yield chunk.content
        finally:
            calls.end()
            await stream.aclose()
        if not has_said:
            yield stream.result.raw

    return answer


class _Calls:
    """The calls of a model that an answer has in progress. CrewAI makes them in threads, where nothing could end them: here
    they are tasks, which the threads wait for. Their loop is not the agent's, for CrewAI does much for each piece."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()  # the agent's, which is not to wait
        self.has_ended = False
        self._open: set[Future[Any]] = set()

    def call(self, made: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(made, _loop())
        self._open.add(future)
        if self.has_ended:  # perhaps before this one was among them
            future.cancel()
        try:
            return future.result()
        finally:
            self._open.discard(future)

    def end(self) -> None:
        """Ends those in progress, and all that may follow: CrewAI tries again what has failed."""
        self.has_ended = True
        for future in list(self._open):
            future.cancel()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=LOOP, daemon=True).start()
    return loop


_calls: ContextVar[_Calls | None] = ContextVar("coralmux_crewai", default=None)


_patched: set[type] = set()


def _patch() -> None:
    """Has the models that CrewAI has loaded called by way of `_Calls`, where an answer is made and they know how to wait."""
    from crewai.llms.base_llm import BaseLLM

    kinds = [BaseLLM]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "call" in kind.__dict__ and kind.acall is not BaseLLM.acall and kind not in _patched:
            _patched.add(kind)
            kind.call = _called(kind.call)


def _called(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(self: Any, *arguments: Any, **named: Any) -> Any:
        calls = _calls.get()
        if calls is None or threading.get_ident() == calls.thread or threading.current_thread().name == LOOP:
            return call(self, *arguments, **named)
        return calls.call(self.acall(*arguments, **named))

    return called
