"""Microsoft Agent Framework: an agent as what answers.

from coralmux import Agent
from coralmux.agent_framework import answers

Agent("wss://relay.example.com").serve(answers(agent))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from .asks import Option
from .kept import Kept
from .pieces import Answers, Piece, Tool, let_go
from .question import Question

APPROVE, REJECT = Option("Approve", "allow_once"), Option("Reject", "reject_once")


def answers(agent: Any, **options: Any) -> Answers:
    """What answers with an agent. Each conversation has a session; `options` go to `agent.run`. Tools that require
    approval ask the person."""
    sessions: Kept[Any] = Kept(agent.create_session)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        names: dict[str, str] = {}
        session, given = sessions[question.chat_id], _message(question)
        while given is not None:
            requests = []
            stream = aiter(agent.run(given, stream=True, session=session, **options))
            try:
                async for update in stream:
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
                        elif content.type == "function_approval_request":
                            requests.append(content)
            finally:
                await let_go(stream)
            given = await _decide(question, requests) if requests else None

    return answer


async def _decide(question: Question, requests: list[Any]) -> Any:
    from agent_framework import Message

    decisions = []
    for request in requests:
        call = request.function_call
        reply = await question.ask(f"May I use {call.name}?\n{call.arguments}", [APPROVE, REJECT], free=False)
        decisions.append(request.to_function_approval_response(reply == APPROVE.label))
    return Message("user", decisions)


def _message(question: Question) -> Any:
    if not question.images:
        return question.text
    from agent_framework import Content, Message

    images = [Content.from_data(image.data, image.mime) for image in question.images]
    return Message("user", [Content.from_text(question.text), *images])
