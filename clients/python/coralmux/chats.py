"""The answers in progress: one for each conversation, several at once, ended by the next question."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from . import question as questions
from .answer import ANSWER_BYTES_MAX, Answer, Ended, Pace, TooLong
from .client import Client
from .history import History
from .mask import words_of
from .pieces import Answers, Tool, pieces_of
from .question import Question, QuestionError

log = logging.getLogger("coralmux")

ANSWERS_MAX = 16  # at work at once, those that have not noticed yet that they were cancelled among them
ENDED_MAX = 64  # answers that have ended, and that the relay may still refuse
STOP_TIMEOUT = 10.0  # seconds for an answer that was cancelled, until the next one of its conversation gives up
HISTORY_BYTES_MAX = 3 << 20  # of chat.history.result: sealed, a third is added, and it has to be one message
HISTORY_MAX = 200  # turns, asked for or not
EMPTY: Mapping[str, Any] = MappingProxyType({})


class AnswerError(Exception):
    """There is no answer; the person is shown these words as they are. `retry_after`: seconds until the next try."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(eq=False)
class _Running:
    """An answer in progress. `reply` is there while the person is asked something."""

    chat: str
    answer: Answer
    task: asyncio.Task[None] | None = None
    reply: asyncio.Future[str] | None = None
    watch: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class Chats:
    """Takes what the phone asks to `answers`. `context`: turns that it is told; `timeout`: seconds of silence."""

    client: Client
    answers: Answers
    context: int
    timeout: float
    history: History = field(default_factory=History)
    running: dict[str, _Running] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    _tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)  # those at work, and their conversations
    _ended: deque[tuple[str, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=ENDED_MAX))

    @property
    def count(self) -> int:
        """How many answers are in progress."""
        return sum(not running.answer.has_ended for running in self.running.values())

    @property
    def at_work(self) -> int:
        """How many tasks there are, those of answers that were cancelled and do not stop among them."""
        return len(self._tasks)

    async def handle_question(self, message_id: str | None, payload: Any) -> None:
        """A `chat.send`. An answer that is in progress in the same conversation ends where it is, unless it waits for
        a reply: then this is it."""
        fields: dict[str, Any] = {"ref": message_id} if message_id else {}
        try:
            chat = questions.chat_of(payload)
            fields |= {} if chat is None else {"chat_id": chat}
            text, images = questions.read(payload)
        except QuestionError as error:
            await self.refuse(fields, str(error))
            return
        name = chat or ""
        answer = Answer(self.client, self.pace, fields)
        before = self.running.get(name)
        if before and before.reply and not before.reply.done():
            self.history.push(name, "user", text, _now_ms(), images)
            before.answer = answer
            before.reply.set_result(text)
            return
        await self.cancel(name)
        if self.at_work >= ANSWERS_MAX:
            await answer.fail("the agent answers too many questions at once: try again in a while")
            return
        earlier = tuple(self.history.context(name, self.context))
        self.history.push(name, "user", text, _now_ms(), images)
        running = self.running[name] = _Running(name, answer)
        asked = Question(text, images, name, message_id, earlier)
        asked = replace(asked, _ask=lambda text, options: self._ask(running, text, options))
        earlier_tasks = [task for task, chat in self._tasks.items() if chat == name]
        running.task = self._spawn(name, self._work(running, asked, earlier_tasks))

    async def handle_cancel(self, payload: Any) -> None:
        """A `chat.cancel`. What cannot be read names no conversation: none is cancelled for it."""
        with contextlib.suppress(QuestionError):
            await self.cancel(questions.chat_of(payload) or "")

    async def handle_history(self, message_id: str | None, payload: Any) -> None:
        """A `chat.history`."""
        fields: dict[str, Any] = {"ref": message_id} if message_id else {}
        limit = payload.get("limit") if isinstance(payload, dict) else None
        try:
            chat = questions.chat_of(payload)
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
                raise QuestionError("the limit is not a whole number of 0 or more")
        except QuestionError as error:
            await self.refuse(fields, str(error))
            return
        turns = min(HISTORY_MAX, HISTORY_MAX if limit is None else limit)
        messages, more = self.history.as_json(chat or "", turns, HISTORY_BYTES_MAX)
        result: dict[str, Any] = {"messages": messages, **fields}
        result |= {"more": True} if more else {}
        result |= {} if chat is None else {"chat_id": chat}
        await self.client.send("chat.history.result", result)

    async def handle_too_large(self, message_id: str) -> None:
        """The relay lets no message of this size through. If it ended an answer, the phone still waits for an end."""
        for done in list(self._ended):
            if done[0] == message_id:
                self._ended.remove(done)
                await self.refuse(done[1], "the relay does not forward an answer of this size")

    async def refuse(self, fields: dict[str, Any], message: str) -> None:
        """Tells the phone that its question is not answered."""
        await Answer(self.client, self.pace, fields).fail(message)

    async def cancel(self, chat: str) -> None:
        """Ends the answer of this conversation where it is, if one is in progress."""
        if running := self.running.get(chat):
            if not running.answer.has_ended:
                await self._end(running, {"cancelled": True})
            if running.task:
                running.task.cancel()

    async def cancel_all(self, timeout: float = STOP_TIMEOUT) -> int:
        """Ends all answers where they are; how many do not stop."""
        for chat in list(self.running):
            await self.cancel(chat)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        return self.at_work

    def _spawn(self, chat: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = chat
        task.add_done_callback(self._tasks.pop)
        return task

    async def _work(self, running: _Running, asked: Question, earlier: list[asyncio.Task[None]]) -> None:
        """The task of an answer, to its end. `earlier`: the others of its conversation, which end first."""
        try:
            if earlier and (await asyncio.wait(earlier, timeout=STOP_TIMEOUT))[1]:
                raise AnswerError("the earlier answer of this conversation does not stop: try again in a while")
            await self._answer(running, asked)
        except Ended:
            pass  # whoever ended it has told the phone
        except AnswerError as error:
            await self._fail(running, str(error), error.retry_after)
        except TooLong:
            notice = f"The answer was cut off: it is longer than {ANSWER_BYTES_MAX >> 20} MiB."
            await self._end(running, {"finish": "length", "notice": notice})
        except (Exception, SystemExit) as error:
            if not running.answer.has_ended:
                log.error("No answer", exc_info=error)
            await self._fail(running, f"the agent failed: {words_of(error)}")
        finally:
            if running.watch:
                running.watch.cancel()
            if self.running.get(running.chat) is running:
                del self.running[running.chat]

    async def _answer(self, running: _Running, asked: Question) -> None:
        has_said = False
        self._watch(running)
        async with contextlib.aclosing(pieces_of(self.answers, asked)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Tool):
                    await running.answer.tool(piece)
                elif isinstance(piece, str):
                    await running.answer.push(piece)
                    has_said = has_said or bool(piece)
                else:
                    raise TypeError(f"an answer is text or pieces of it, not {type(piece).__name__}")
                self._watch(running)
        if running.answer.has_ended:
            return
        if not running.answer.text.strip():
            raise AnswerError("the agent gave no answer" if not has_said else "the agent's answer is empty")
        await self._end(running)

    async def _ask(self, running: _Running, text: str, options: tuple[str, ...]) -> str:
        """Asks in plain text: the text so far, with the question, is an answer; the next message is the reply."""
        if running.answer.has_ended:
            raise Ended
        if options and not all(option in text for option in options):
            text += f" ({' / '.join(options)})"
        await running.answer.push(("\n\n" if running.answer.text else "") + text)
        if running.watch:
            running.watch.cancel()
        running.reply = asyncio.get_running_loop().create_future()
        await self._end(running)
        try:
            return await running.reply
        finally:
            running.reply = None
            self._watch(running)

    def _watch(self, running: _Running) -> None:
        """From now on it may be silent for `timeout`."""
        if running.watch:
            running.watch.cancel()
        loop = asyncio.get_running_loop()
        running.watch = loop.call_later(self.timeout, lambda: self._spawn(running.chat, self._give_up(running)))

    async def _give_up(self, running: _Running) -> None:
        await self._fail(running, f"the agent said nothing for {self.timeout:g} s")
        if running.task:
            running.task.cancel()

    async def _fail(self, running: _Running, message: str, retry_after: float | None = None) -> None:
        if running.answer.has_ended:
            return
        if text := running.answer.text:
            self.history.push(running.chat, "assistant", text, _now_ms(), finish="error", notice=message)
        else:
            self.history.forget_question(running.chat)
        log.warning("No answer: %s", message)
        await running.answer.fail(message, retry_after)

    async def _end(self, running: _Running, more: Mapping[str, Any] = EMPTY) -> None:
        """`more`: how it was cut short, as `chat.done` has it."""
        answer = running.answer
        if answer.has_ended:
            return
        if answer.text:
            finish = "cancelled" if more.get("cancelled") else more.get("finish")
            self.history.push(
                running.chat, "assistant", answer.text, _now_ms(), finish=finish, notice=more.get("notice", "")
            )
        if done := await answer.end(more):
            self._ended.append((done, dict(answer.fields)))


def _now_ms() -> int:
    return int(time.time() * 1000)
