"""AutoGen (AgentChat): an agent or a team as what answers.

from coralmux import Agent
from coralmux.autogen import answers

Agent("wss://relay.example.com").serve(answers(make_agent))
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable
from typing import Any

from . import person
from .kept import Kept
from .pieces import Answers, Piece, Tool, let_go
from .question import Question


def answers(make_agent: Callable[[], Any]) -> Answers:
    """What answers with an agent or a team: `make_agent` makes one for each conversation. With
    `model_client_stream=True` it streams. `UserProxyAgent(name, input_func=ask)` asks the person."""
    agents = Kept(make_agent)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from autogen_agentchat.messages import (
            ModelClientStreamingChunkEvent,
            TextMessage,
            ToolCallExecutionEvent,
            ToolCallRequestEvent,
            ToolCallSummaryMessage,
        )
        from autogen_core import CancellationToken

        token, streamed = CancellationToken(), set()
        stream = agents[question.chat_id].run_stream(task=_task(question), cancellation_token=token)
        try:
            async for message in stream:
                if isinstance(message, ModelClientStreamingChunkEvent):
                    streamed.add(message.source)
                    yield message.content
                elif isinstance(message, ToolCallRequestEvent):
                    for call in message.content:
                        yield Tool(call.name, call_id=call.id)
                elif isinstance(message, ToolCallExecutionEvent):
                    for result in message.content:
                        yield Tool(result.name, "error" if result.is_error else "done", call_id=result.call_id)
                elif isinstance(message, TextMessage | ToolCallSummaryMessage) and message.source != "user":
                    if message.source not in streamed:
                        yield message.content
                    streamed.discard(message.source)
        finally:
            await let_go(stream)
            token.cancel()

    return answer


async def ask(prompt: str, cancellation_token: Any = None) -> str:
    """What the person replies, for a `UserProxyAgent`, whose prompts say nothing, or a tool."""
    text = "Your reply?" if prompt.startswith("Enter your response") else prompt
    return await person.ask(text) or ""


def _task(question: Question) -> Any:
    if not question.images:
        return question.text
    import PIL.Image
    from autogen_agentchat.messages import MultiModalMessage
    from autogen_core import Image

    images = [Image(PIL.Image.open(io.BytesIO(image.data))) for image in question.images]
    return MultiModalMessage(content=[question.text, *images], source="user")
