"""Pydantic AI: an agent as what answers.

from coralmux import Agent
from coralmux.pydantic_ai import answers

Agent("wss://relay.example.com").serve(answers(agent))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from .asks import Option
from .kept import Kept
from .pieces import Answers, Piece, Tool
from .question import Question

APPROVE, REJECT = Option("Approve", "allow_once"), Option("Reject", "reject_once")


def answers(agent: Any, *, make_deps: Callable[[Question], Any] | None = None, **options: Any) -> Answers:
    """What answers with an agent. `make_deps` makes its dependencies, `options` go to `run_stream_events`. With
    `DeferredToolRequests` among its output types, tools that require approval ask the person, and calls that are made
    elsewhere are answered by the person."""
    histories: Kept[Any] = Kept(lambda: None)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from pydantic_ai import AgentRunResultEvent, BinaryContent, DeferredToolRequests
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
        history, results, output = histories[question.chat_id], None, None
        while True:
            if isinstance(output, DeferredToolRequests):
                prompt, results = None, await _decide(question, output)
            given = {"message_history": history, "deferred_tool_results": results, "deps": deps}
            async with agent.run_stream_events(prompt, **given, **options) as events:
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
                        history, output = event.result.all_messages(), event.result.output
            if not isinstance(output, DeferredToolRequests):
                break
        histories[question.chat_id] = history  # not before: one in which calls are open takes no question

    return answer


async def _decide(question: Question, requests: Any) -> Any:
    from pydantic_ai import DeferredToolResults, ToolDenied

    results = DeferredToolResults()
    for call in requests.approvals:
        text = f"May I use {call.tool_name}?\n{call.args_as_json_str()}"
        reply = await question.ask(text, [APPROVE, REJECT])
        denied = ToolDenied(reply) if reply and reply != REJECT.label else ToolDenied()
        results.approvals[call.tool_call_id] = True if reply == APPROVE.label else denied
    for call in requests.calls:
        results.calls[call.tool_call_id] = await question.ask(f"{call.tool_name}\n{call.args_as_json_str()}") or ""
    return results
