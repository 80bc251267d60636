"""OpenAI Agents SDK: an agent as what answers.

from coralmux import Agent
from coralmux.openai_agents import answers

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


def answers(agent: Any, *, make_session: Callable[[str], Any] | None = None, **options: Any) -> Answers:
    """What answers with an agent. Its memory is a session for each conversation: in memory, or what `make_session`
    makes of its name. Tools with `needs_approval` ask the person. `options` go to `Runner.run_streamed`."""
    sessions: Kept[Any] = Kept(lambda: None)

    async def answer(question: Question) -> AsyncGenerator[Piece]:
        from agents import Runner, SQLiteSession

        chat = question.chat_id or "default"
        if sessions[chat] is None:
            sessions[chat] = make_session(chat) if make_session else SQLiteSession(chat)
        run = Runner.run_streamed(agent, _input(question), session=sessions[chat], **options)
        names: dict[str, str] = {}
        while True:
            try:
                async for event in run.stream_events():
                    if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                        yield event.data.delta
                    elif event.type == "run_item_stream_event" and event.name in ("tool_called", "tool_output"):
                        call = event.item.raw_item
                        call_id = call["call_id"] if isinstance(call, dict) else call.call_id
                        if event.name == "tool_called":
                            names[call_id] = call.name
                        status = "running" if event.name == "tool_called" else "done"
                        yield Tool(names.get(call_id, "tool"), status, call_id=call_id)  # type: ignore[arg-type]
            finally:
                run.cancel()
            if not run.interruptions:
                return
            state = run.to_state()
            for item in run.interruptions:
                reply = await question.ask(f"May I use {item.name}?\n{item.arguments}", [APPROVE, REJECT], free=False)
                state.approve(item) if reply == APPROVE.label else state.reject(item)
            run = Runner.run_streamed(agent, state, session=sessions[chat], **options)

    return answer


def _input(question: Question) -> Any:
    if not question.images:
        return question.text
    images = [{"type": "input_image", "detail": "auto", "image_url": image.url} for image in question.images]
    return [{"role": "user", "content": [{"type": "input_text", "text": question.text}, *images]}]
