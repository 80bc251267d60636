"""Asking the person from anywhere in an answer: a tool of a framework, or what it calls for input."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

from .asks import Option
from .question import Question

_answered: ContextVar[tuple[Question, asyncio.AbstractEventLoop] | None] = ContextVar("coralmux_question", default=None)


def begin(question: Question) -> None:
    """The task that runs answers this question, and so does all that it starts."""
    _answered.set((question, asyncio.get_running_loop()))


async def ask(
    text: str,
    options: Sequence[str | Option] = (),
    *,
    free: bool | None = None,
    default: str | None = None,
    timeout: float | None = None,
) -> str | None:
    """As `Question.ask`, of the question that is being answered. For what the answer awaits, or has made a task of."""
    return await _current()[0].ask(text, options, free=free, default=default, timeout=timeout)


def ask_in_thread(
    text: str,
    options: Sequence[str | Option] = (),
    *,
    free: bool | None = None,
    default: str | None = None,
    timeout: float | None = None,
) -> str | None:
    """The same for code that is not asynchronous, in a thread that the answer has started, or its framework."""
    question, loop = _current()
    reply = question.ask(text, options, free=free, default=default, timeout=timeout)
    return asyncio.run_coroutine_threadsafe(reply, loop).result()


def _current() -> tuple[Question, asyncio.AbstractEventLoop]:
    if (answered := _answered.get()) is None:
        raise RuntimeError("no question is being answered here: there is nobody to ask")
    return answered
