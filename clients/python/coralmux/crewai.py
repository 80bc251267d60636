"""CrewAI: a crew as what answers.

from coralmux import Agent
from coralmux.crewai import answers

Agent("wss://relay.example.com").serve(answers(make_crew))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from .pieces import Answers, Piece, Tool
from .question import Question


def inputs(question: Question) -> dict[str, Any]:
    """What tasks can use: `{text}`, and `{history}`, the conversation so far, a line for each turn."""
    return {"text": question.text, "history": "\n".join(f"{turn.role}: {turn.text}" for turn in question.history)}


def answers(make_crew: Callable[[], Any], *, make_inputs: Callable[[Question], dict[str, Any]] = inputs) -> Answers:
    """What answers with a crew: `make_crew` makes one a question. All that its agents say is shown.

    CrewAI calls the model in a thread that nothing ends: after a cancel the call goes on, unheard, and the next question
    of the conversation waits for it for 10 s.
    """

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from crewai.types.streaming import StreamChunkType

        if question.images:
            yield Tool("images", "error", "Crews get no images from here")
        crew = make_crew()
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
            await stream.aclose()
        if not has_said:
            yield stream.result.raw

    return answer
