"""AG2: an agent as what answers.

from coralmux import Agent
from coralmux.ag2 import answers

Agent("wss://relay.example.com").serve(answers(agent))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from .kept import Kept
from .pieces import Answers, Piece, Tool
from .question import Question


def answers(agent: Any) -> Answers:
    """What answers with an agent. Each conversation has a stream of its own; `context.input` asks the person."""
    from ag2 import MemoryStream

    streams: Kept[Any] = Kept(MemoryStream)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from ag2.events import ModelMessageChunk, ToolCallEvent, ToolErrorEvent, ToolResultEvent

        async def ask(event: Any) -> str:
            return await question.ask(event.content, timeout=event.timeout) or ""

        events: asyncio.Queue[Any] = asyncio.Queue()
        async with agent.run(*_inputs(question), stream=streams[question.chat_id], hitl_hook=ask) as run:
            subscription = run.stream.subscribe(events.put_nowait, sync_to_thread=False)
            result = asyncio.ensure_future(run.result())
            result.add_done_callback(lambda _: events.put_nowait(None))
            try:
                while (event := await events.get()) is not None:
                    if isinstance(event, ModelMessageChunk):
                        yield event.content
                    elif isinstance(event, ToolCallEvent):
                        yield Tool(event.name, call_id=event.id)
                    elif isinstance(event, ToolResultEvent):
                        status = "error" if isinstance(event, ToolErrorEvent) else "done"
                        yield Tool(event.name or "tool", status, call_id=event.parent_id)  # type: ignore[arg-type]
                await result
            finally:
                result.cancel()
                run.stream.unsubscribe(subscription)

    return answer


def _inputs(question: Question) -> list[Any]:
    from ag2 import BinaryInput
    from ag2.events import BinaryType

    images = [BinaryInput(image.data, media_type=image.mime, kind=BinaryType.IMAGE) for image in question.images]
    return [question.text, *images]
