"""LlamaIndex: an agent workflow as what answers.

from coralmux import Agent
from coralmux.llamaindex import answers

Agent("wss://relay.example.com").serve(answers(FunctionAgent(...)))
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from .pieces import Answers, Piece, Tool
from .question import Question, Turn


def answers(agent: Any) -> Answers:
    """What answers with an agent (FunctionAgent, ReActAgent, AgentWorkflow). It is told the conversation each time.
    What waits for a `HumanResponseEvent` after an `InputRequiredEvent` asks the person."""

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from llama_index.core.agent.workflow import AgentStream, ToolCall, ToolCallResult
        from llama_index.core.workflow import HumanResponseEvent, InputRequiredEvent

        asked = _message(Turn("user", question.text, question.images))
        run = agent.run(asked, chat_history=[_message(turn) for turn in question.history])
        try:
            async for event in run.stream_events():
                if isinstance(event, AgentStream) and event.delta:
                    yield event.delta
                elif isinstance(event, ToolCallResult):  # which is a ToolCall, too
                    status = "error" if event.tool_output.is_error else "done"
                    yield Tool(event.tool_name, status, call_id=event.tool_id)  # type: ignore[arg-type]
                elif isinstance(event, ToolCall):
                    yield Tool(event.tool_name, call_id=event.tool_id)
                elif isinstance(event, InputRequiredEvent):
                    waits_for = dict(event.items())
                    reply = await question.ask(str(waits_for.pop("prefix", "")).strip() or "Your reply?")
                    run.ctx.send_event(HumanResponseEvent(**waits_for | {"response": reply or ""}))
            await run
        finally:
            if not run.done():
                await run.cancel_run()

    return answer


def _message(turn: Turn) -> Any:
    from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

    images = [ImageBlock(image=image.data, image_mimetype=image.mime) for image in turn.images]
    return ChatMessage(role=turn.role, blocks=[TextBlock(text=turn.text), *images])
