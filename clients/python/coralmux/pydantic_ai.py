"""Pydantic AI: an agent as what answers.

from coralmux import Agent
from coralmux.pydantic_ai import answers

Agent("wss://relay.example.com").serve(answers(agent))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from .kept import Kept
from .pieces import Answers, Piece, Tool
from .question import Question


def answers(agent: Any, *, make_deps: Callable[[Question], Any] | None = None, **options: Any) -> Answers:
    """What answers with an agent. `make_deps` makes its dependencies, `options` go to `run_stream_events`."""
    histories: Kept[Any] = Kept(lambda: None)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from pydantic_ai import AgentRunResultEvent, BinaryContent
        from pydantic_ai.messages import (
            FunctionToolCallEvent,
            FunctionToolResultEvent,
            PartDeltaEvent,
            PartStartEvent,
            RetryPromptPart,
            TextPart,
            TextPartDelta,
        )

        images = [BinaryContent(data=image.data, media_type=image.mime) for image in question.images]
        prompt: Any = [question.text, *images] if images else question.text
        deps = make_deps(question) if make_deps else None
        history = histories[question.chat_id]
        async with agent.run_stream_events(prompt, message_history=history, deps=deps, **options) as events:
            async for event in events:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    yield event.part.content
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    yield event.delta.content_delta
                elif isinstance(event, FunctionToolCallEvent):
                    yield Tool(event.part.tool_name, call_id=event.part.tool_call_id)
                elif isinstance(event, FunctionToolResultEvent):
                    status = "error" if isinstance(event.part, RetryPromptPart) else "done"
                    yield Tool(event.part.tool_name or "tool", status, call_id=event.part.tool_call_id)  # type: ignore[arg-type]
                elif isinstance(event, AgentRunResultEvent):
                    histories[question.chat_id] = event.result.all_messages()

    return answer
