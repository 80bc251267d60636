"""What an answer is made of, and how it comes out of whatever makes it: a coroutine, a generator, a plain function."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .files import File
from .question import Image, Question

AHEAD_MAX = 64  # pieces that a thread may be ahead of the connection
LET_GO_AFTER = 0.02  # seconds, in which a framework comes to wait for its model


@dataclass(frozen=True)
class Tool:
    """What the agent is doing, for the person to see while there is no text: "running", "done" or "error".

    `message` is for people, and `detail` more for them (a plan, a diff); `call_id` tells calls of one tool apart.
    """

    name: str
    status: Literal["running", "done", "error"] = "running"
    message: str | None = None
    detail: str | None = None
    call_id: str | None = None


Piece = str | Tool | File | Image
Result = AsyncIterable[Piece] | Iterable[Piece] | Awaitable[Any] | str | None
Answers = Callable[[Question], Result]
"""What answers: gets a question, gives text, or text, files and tools in pieces. If not asynchronous, it runs in a thread."""


async def pieces_of(answers: Answers, question: Question) -> AsyncGenerator[Piece]:
    """The pieces of an answer. Closing it closes the generator that they come from, and waits for its thread."""
    call = answers if inspect.isroutine(answers) else type(answers).__call__
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        result = answers(question)
    else:
        async with contextlib.aclosing(_from_thread(answers, question)) as items:
            result = None
            async for item in items:
                if not isinstance(item, _Returned):
                    yield item
                    continue
                result = item.value
    while inspect.isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterable):
        try:
            async for piece in result:
                yield piece
        finally:
            if close := getattr(result, "aclose", None):
                await close()
    elif isinstance(result, str):
        yield result
    elif result is not None:
        raise TypeError(f"an answer is text, files or pieces of it, not {type(result).__name__}")


async def let_go(stream: Any) -> None:
    """Ends what a framework streams. Many close the model's connection only if they are cancelled where they wait for it, and
    not where nobody takes any more pieces from them: so more is asked for, and that is cancelled."""
    task = asyncio.current_task()
    assert task, "an answer is made by one"
    before = task.cancelling()
    # In this very task: some keep variables of its context.
    cancelling = asyncio.get_running_loop().call_later(LET_GO_AFTER, task.cancel)
    try:
        for _ in range(AHEAD_MAX):
            await anext(stream)
    except (asyncio.CancelledError, Exception):  # the end among them
        pass
    finally:
        cancelling.cancel()
        while task.cancelling() > before:
            task.uncancel()
    if close := getattr(stream, "aclose", None):
        await close()


@dataclass(frozen=True)
class _Returned:
    """What a function has returned, where that is not an iterator: text, or something asynchronous."""

    value: Any


async def _from_thread(answers: Answers, question: Question) -> AsyncGenerator[Any]:
    """What a function returns or its generator yields, from a thread of its own. It stops at the next piece."""
    loop, items = asyncio.get_running_loop(), asyncio.Queue[Any]()
    room, stopped, ended = threading.Semaphore(AHEAD_MAX), threading.Event(), asyncio.Event()
    failure: list[BaseException] = []

    def tell(item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(items.put_nowait, item)

    def work() -> None:
        try:
            result = answers(question)
            if isinstance(result, str) or not isinstance(result, Iterable):
                tell(_Returned(result))
                return
            pieces = iter(result)
            try:
                for piece in pieces:
                    while not room.acquire(timeout=0.2):
                        if stopped.is_set():
                            return
                    if stopped.is_set():
                        return
                    tell(piece)
            finally:
                if close := getattr(pieces, "close", None):
                    close()
        except BaseException as error:  # told where the answer is awaited
            failure.append(error)
        finally:
            tell(None)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="answer", daemon=True).start()
    try:
        while (item := await items.get()) is not None:
            room.release()
            yield item
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        await ended.wait()
