"""The answers in progress: one for each conversation, several at once, ended by the next question."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from . import files, person
from . import question as questions
from .abilities import Abilities
from .answer import ANSWER_BYTES_MAX, BACKEND_ERROR, Answer, Ended, Pace, TooLong, send
from .asks import OPEN_MAX, Ask, Asks
from .client import Client
from .history import History
from .mask import words_of
from .pieces import Answers, Tool, pieces_of
from .question import Image, Question, QuestionError

log = logging.getLogger("coralmux")

ANSWERS_MAX = 16  # at work at once, those that have not noticed yet that they were cancelled among them
WAITING_MAX = 64  # questions beyond them, which are answered in their turn
ENDED_MAX = 64  # answers that have ended, and that the relay may still refuse
STOP_TIMEOUT = 10.0  # seconds for an answer that was cancelled, until the next one of its conversation gives up
HISTORY_BYTES_MAX = 3 << 20  # of chat.history.result: sealed, a third is added, and it has to be one message
HISTORY_MAX = 200  # turns, asked for or not
UNTOLD_MAX = 64
TELL_TIMEOUT = 2.0  # seconds, after which a message waits for the phone
PLACE = "chat_id", "agent"  # what names a conversation in a message
COLLECT_AFTER = 0.1  # seconds after an answer that was cancelled has ended
THANKS = "Thank you."  # for the reply to a question that was no part of an answer
EMPTY: Mapping[str, Any] = MappingProxyType({})


class AnswerError(Exception):
    """There is no answer; the person is shown these words as they are. `retry_after`: seconds until the next try."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(eq=False)
class _Running:
    """An answer in progress. `plain` is what the person is asked in plain text, while the next message is the reply."""

    chat: str
    answer: Answer
    task: asyncio.Task[None] | None = None
    plain: Ask | None = None
    watch: asyncio.TimerHandle | None = None
    device: str | None = None  # that asked


@dataclass(eq=False)
class Chats:
    """Takes what the phone asks to the agent that it names, or to the first. `context`: turns that it is told; `timeout`:
    seconds of silence."""

    client: Client
    agents: Mapping[str, Answers]  # by their ids; at least one
    context: int
    timeout: float
    history: History = field(default_factory=History)
    running: dict[str, _Running] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    abilities: Abilities = field(default_factory=Abilities)
    _untold: set[asyncio.Task[None]] = field(default_factory=set)  # what the agent says, while it waits for the phone
    _asking: dict[str, asyncio.Lock] = field(default_factory=dict)
    _tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)  # those at work, and their conversations
    _waiting: dict[str, tuple[dict[str, Any], str | None, Any, str | None]] = field(
        default_factory=dict
    )  # conversation: its question, which no answer is made for yet: what names it, and what it came as
    _next: asyncio.Task[None] | None = None
    _ended: deque[tuple[str, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=ENDED_MAX))

    def __post_init__(self) -> None:
        self.asks = Asks(lambda kind, payload, to: send(self.client, kind, payload, to=to))

    @property
    def count(self) -> int:
        """How many answers are in progress, or wait for their turn."""
        return len(self._waiting) + sum(not running.answer.has_ended for running in self.running.values())

    @property
    def at_work(self) -> int:
        """How many tasks there are, those of answers that were cancelled and do not stop among them."""
        return len(self._tasks)

    async def handle_question(self, message_id: str | None, payload: Any, device: str | None = None) -> None:
        """A `chat.send`, of a device if the phone is one. An answer that is in progress in the same conversation ends where it is, unless it waits for
        a reply: then this is it."""
        fields: dict[str, Any] = {"ref": message_id} if message_id else {}
        try:
            name, answers = self._place_of(payload, fields)
            text, images = questions.read(payload)
        except QuestionError as error:
            await self.refuse(fields, str(error))
            return
        answer = Answer(self.client, self.pace, fields)
        before = self.running.get(name)
        self.abilities.note(name, payload)
        if before and before.plain and not before.plain.reply.done():
            await self._handle_plain_reply(before, before.plain, answer, text, images)
            return
        await self.cancel(name)
        if self.at_work >= ANSWERS_MAX:
            if len(self._waiting) >= WAITING_MAX:
                await answer.fail("the agent answers too many questions at once: try again in a while")
            else:
                self._waiting[name] = fields, message_id, payload, device
            return
        earlier = tuple(self.history.context(name, self.context))
        self.history.push(name, "user", text, _now_ms(), images)
        running = self.running[name] = _Running(name, answer, device=device)
        asked = Question(text, images, fields.get("chat_id", ""), message_id, earlier)
        asked = replace(asked, _ask=lambda ask: self._ask(running, ask))
        earlier_tasks = [task for task, chat in self._tasks.items() if chat == name]
        running.task = self._spawn(name, self._work(running, answers, asked, earlier_tasks))

    async def handle_cancel(self, payload: Any) -> None:
        """A `chat.cancel`. What cannot be read names no conversation: none is cancelled for it."""
        with contextlib.suppress(QuestionError):
            await self.cancel(self._place_of(payload, {})[0])

    async def handle_left(self, device: str | None) -> None:
        """A device is one no more: what it asked is answered no further."""
        for chat in [chat for chat, waiting in self._waiting.items() if device and waiting[-1] == device]:
            del self._waiting[chat]
        for chat in [chat for chat, running in self.running.items() if device and running.device == device]:
            await self.cancel(chat)

    async def handle_history(self, message_id: str | None, payload: Any, asker: str) -> None:
        """A `chat.history`, of a device or of the plain phone: answered to that alone."""
        fields: dict[str, Any] = {"ref": message_id} if message_id else {}
        limit = payload.get("limit") if isinstance(payload, dict) else None
        try:
            name, _ = self._place_of(payload, fields)
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
                raise QuestionError("the limit is not a whole number of 0 or more")
        except QuestionError as error:
            await send(self.client, "chat.error", {"code": BACKEND_ERROR, "message": str(error), **fields}, to=asker)
            return
        turns = min(HISTORY_MAX, HISTORY_MAX if limit is None else limit)
        messages, more = self.history.as_json(name, turns, HISTORY_BYTES_MAX)
        result: dict[str, Any] = {"messages": messages, **fields}
        result |= {"more": True} if more else {}
        await self.client.send("chat.history.result", result, device=asker)

    def _place_of(self, payload: Any, fields: dict[str, Any]) -> tuple[str, Answers]:
        """Which conversation a payload means, and what answers there; `fields` get what names it. QuestionError."""
        chat, agent = questions.chat_of(payload), questions.agent_of(payload)
        fields |= ({} if chat is None else {"chat_id": chat}) | ({} if agent is None else {"agent": agent})
        first = next(iter(self.agents))
        if agent is None or agent == first:
            return chat or "", self.agents[first]
        if agent not in self.agents:
            raise QuestionError("there is no such agent here: ask for the list again")
        return f"{agent}\0{chat or ''}", self.agents[agent]

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
        if waiting := self._waiting.pop(chat, None):
            await self.refuse(waiting[0], "the question was cancelled before it could be answered")
        if running := self.running.get(chat):
            if not running.answer.has_ended:
                await self._end(running, {"cancelled": True})
            running.plain = None  # the next message is no reply any more
            if running.task:
                running.task.add_done_callback(_collect_soon)
                running.task.cancel()

    async def cancel_all(self, timeout: float = STOP_TIMEOUT) -> int:
        """Ends all answers where they are; how many do not stop."""
        for task in self._untold:
            task.cancel()
        while self._waiting:
            await self.refuse(self._waiting.popitem()[1][0], "the agent is stopping")
        for chat in list(self.running):
            await self.cancel(chat)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        return self.at_work

    def _spawn(self, chat: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = chat
        task.add_done_callback(self._have_ended)
        return task

    def _have_ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if self._waiting and (self._next is None or self._next.done()):
            self._next = asyncio.create_task(self._take_next())

    async def _take_next(self) -> None:
        """Answers are made for those that have waited for their turn."""
        while self._waiting and self.at_work < ANSWERS_MAX:
            _, message_id, payload, device = self._waiting.pop(next(iter(self._waiting)))
            await self.handle_question(message_id, payload, device)

    async def _work(
        self, running: _Running, answers: Answers, asked: Question, earlier: list[asyncio.Task[None]]
    ) -> None:
        """The task of an answer, to its end. `earlier`: the others of its conversation, which end first."""
        try:
            if earlier and (await asyncio.wait(earlier, timeout=STOP_TIMEOUT))[1]:
                raise AnswerError("the earlier answer of this conversation does not stop: try again in a while")
            await self._answer(running, answers, asked)
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

    async def _answer(self, running: _Running, answers: Answers, asked: Question) -> None:
        has_said = False
        person.begin(asked)
        self._watch(running)
        async with contextlib.aclosing(pieces_of(answers, asked)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Tool):
                    await running.answer.tool(piece)
                elif isinstance(piece, files.File | Image):
                    await self._send_file(running, piece)
                elif isinstance(piece, str):
                    await running.answer.push(piece)
                    has_said = has_said or bool(piece)
                else:
                    raise TypeError(f"an answer is text, files or pieces of it, not {type(piece).__name__}")
                self._watch(running)
        if running.answer.has_ended:
            return
        if not running.answer.text.strip() and not running.answer.files:
            raise AnswerError("the agent gave no answer" if not has_said else "the agent's answer is empty")
        await self._end(running)

    async def _send_file(self, running: _Running, piece: files.File | Image) -> None:
        """A file, or words in its place."""
        file = files.file_of(piece, running.answer.files + 1)
        if len(file.data) > files.BYTES_MAX:
            why = f"it is too large to be sent, for it may have {files.BYTES_MAX / 1e6:.1f} MB"
        elif running.answer.files >= files.FILES_MAX:
            why = f"an answer has {files.FILES_MAX} files at most"
        elif not self.abilities.has(running.chat, "files"):
            why = "this phone does not show files of an agent"
        else:
            await running.answer.file(file)
            return
        await running.answer.push(files.words(file, why))

    async def ask(self, chat: str | None, ask: Ask) -> str | None:
        """Asks the person something of the agent's own accord; the reply, or None."""
        task = asyncio.create_task(self._ask_unasked(chat, ask))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        return None if task.cancelled() else task.result()  # the person has cancelled it

    async def _ask_unasked(self, chat: str | None, ask: Ask) -> str | None:
        name, ask.fields = chat or "", {} if chat is None else {"chat_id": chat}
        if self.abilities.has(name, "asks"):
            return await self.asks.show(ask)
        async with self._asking.setdefault(name, asyncio.Lock()):  # one at a time: the next message is the reply
            if (before := self.running.get(name)) and before.task:
                await asyncio.wait({before.task}, timeout=ask.remaining)
            if name in self.running:
                return ask.said(ask.default, None)
            running = self.running[name] = _Running(name, self._unasked(ask.fields), asyncio.current_task())
            try:
                reply = await self._ask_plainly(running, ask)
                if not running.answer.fields.get("unasked"):
                    await running.answer.push(THANKS)
                    await self._end(running)
                return reply
            finally:
                if self.running.get(name) is running:
                    del self.running[name]

    async def tell(self, chat: str | None, text: str, shown: Sequence[files.File | Image] = ()) -> bool:
        """Says and shows something of the agent's own accord. False: the phone is away, and is told when it comes. AnswerError,
        where that is too much."""
        if len(self._untold) >= UNTOLD_MAX:
            raise AnswerError(f"{UNTOLD_MAX} messages wait for the phone already")
        running = _Running(chat or "", self._unasked({} if chat is None else {"chat_id": chat}))
        try:
            await running.answer.push(text)
        except TooLong:
            raise AnswerError(f"a message is at most {ANSWER_BYTES_MAX >> 20} MiB") from None
        task = asyncio.create_task(self._tell(running, shown))
        self._untold.add(task)
        task.add_done_callback(self._untold.discard)
        return bool((await asyncio.wait({task}, timeout=TELL_TIMEOUT))[0])

    async def _tell(self, running: _Running, shown: Sequence[files.File | Image]) -> None:
        for piece in shown:
            await self._send_file(running, piece)
        await self._end(running)

    def _unasked(self, fields: Mapping[str, Any]) -> Answer:
        return Answer(self.client, self.pace, {**fields, "unasked": True, "ref": str(uuid.uuid4())}, None)

    async def _ask(self, running: _Running, ask: Ask) -> str | None:
        """Asks the person something that an answer needs."""
        if running.answer.has_ended:
            raise Ended
        ask.fields = {name: value for name, value in running.answer.fields.items() if name in PLACE or name == "ref"}
        if running.watch:
            running.watch.cancel()
        try:
            if self.abilities.has(running.chat, "asks"):
                return await self.asks.show(ask)
            return await self._ask_plainly(running, ask)
        finally:
            self._watch(running)

    async def _ask_plainly(self, running: _Running, ask: Ask) -> str | None:
        """The text so far, with the question, is an answer; the next message is the reply to it."""
        if sum(running.plain is not None for running in self.running.values()) >= OPEN_MAX:
            return ask.said(ask.default, None)
        await running.answer.push(("\n\n" if running.answer.text else "") + ask.plain())
        running.plain = ask
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end(running), ask.remaining)
            number, text = await ask.wait()
            if running.answer.has_ended:  # it expired: what follows is no answer to anything
                place = {name: value for name, value in running.answer.fields.items() if name in PLACE}
                running.answer = self._unasked(place)
            return ask.said(number, text)
        finally:
            running.plain = None

    async def _handle_plain_reply(
        self, running: _Running, ask: Ask, answer: Answer, text: str, images: tuple[Image, ...]
    ) -> None:
        self.history.push(running.chat, "user", text, _now_ms(), images)
        if not images and ask.take_plain(text):
            running.answer = answer
            return
        again = _Running(running.chat, answer)
        await answer.push(ask.plain())
        await self._end(again)

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
        if answer.text or answer.files:
            finish = "cancelled" if more.get("cancelled") else more.get("finish")
            self.history.push(
                running.chat, "assistant", answer.text, _now_ms(), (), finish, more.get("notice", ""), answer.files
            )
        if done := await answer.end(more):
            self._ended.append((done, dict(answer.fields)))


def _collect_soon(task: asyncio.Task[None]) -> None:
    """A framework that was cancelled between two pieces leaves the connection to its model to the garbage, where frames that
    refer to each other would keep it open for long."""
    task.get_loop().call_later(COLLECT_AFTER, gc.collect)


def _now_ms() -> int:
    return int(time.time() * 1000)
