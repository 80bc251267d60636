"""Microsoft Agent Framework: an agent as what answers.

from coralmux import Agent
from coralmux.agent_framework import answers

Agent("wss://relay.example.com").serve(answers(agent))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from .kept import Kept
from .pieces import Answers, Piece, Tool
from .question import Question


def answers(agent: Any, **options: Any) -> Answers:
    """What answers with an agent. Each conversation has a session; `options` go to `agent.run`."""
    sessions: Kept[Any] = Kept(agent.create_session)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        names: dict[str, str] = {}
        async for update in agent.run(_message(question), stream=True, session=sessions[question.chat_id], **options):
            for content in update.contents:
                if content.type == "text" and content.text:
                    yield content.text
                elif content.type == "function_call" and content.name:
                    names[content.call_id] = content.name
                    yield Tool(content.name, call_id=content.call_id)
                elif content.type == "function_result":
                    status = "error" if content.exception else "done"
                    name = names.get(content.call_id, "tool")
                    yield Tool(name, status, call_id=content.call_id)  # type: ignore[arg-type]

    return answer


def _message(question: Question) -> Any:
    if not question.images:
        return question.text
    from agent_framework import Content, Message

    images = [Content.from_data(image.data, image.mime) for image in question.images]
    return Message("user", [Content.from_text(question.text), *images])
