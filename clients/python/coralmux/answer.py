"""One answer on its way to the phone: its pieces put together, its end said once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from . import files
from .client import Client, Refused
from .pieces import Tool

log = logging.getLogger("coralmux")

BACKEND_ERROR = "BACKEND_ERROR"
SEND_TIMEOUT = 30.0  # seconds
ANSWER_BYTES_MAX = 1 << 20  # chat.done repeats all of it, JSON may double it and encryption adds a third
PIECE_BYTES_MAX = 64 << 10
PIECES_PER_SECOND = 80.0  # of all answers: the relay reads more slowly beyond 100
PIECE_INTERVAL = 0.04  # seconds between two pieces of one answer, at least
TOOLS_BURST, TOOLS_PER_SECOND = 20.0, 1.0  # they count as messages, of which an agent has 120 a minute
TOOL_MAX, TOOL_MESSAGE_MAX, TOOL_DETAIL_MAX, TOOL_CALL_MAX = 100, 200, 4000, 128  # characters


# What the relay wakes a device for that is away.
WAKES = "chat.done", "chat.error", "chat.ask"


class Ended(Exception):
    """The answer is not wanted any more."""


class TooLong(Exception):
    """The answer would get longer than one may be."""


class Pace:
    """How fast the answers of an agent may leave, all together."""

    def __init__(self) -> None:
        self.answers = 0
        self._tools, self._at = TOOLS_BURST, 0.0

    @property
    def interval(self) -> float:
        return max(PIECE_INTERVAL, self.answers / PIECES_PER_SECOND)

    def takes_tool(self, now: float) -> bool:
        """Whether one more word about a tool may leave. Beyond the rate they are dropped: the text is what counts."""
        self._tools = min(TOOLS_BURST, self._tools + (now - self._at) * TOOLS_PER_SECOND)
        self._at = now
        if self._tools < 1:
            return False
        self._tools -= 1
        return True


class Answer:
    """Text goes in, `chat.stream` messages come out, then one `chat.done` or `chat.error`. `seq` counts from 1.

    `fields` is what each of its messages has beside. Whoever ends it first tells the phone; after that nothing is sent.
    `patience`: seconds that a message waits for a phone that cannot be reached; None: as long as it takes.
    """

    def __init__(
        self, client: Client, pace: Pace, fields: Mapping[str, Any], patience: float | None = SEND_TIMEOUT
    ) -> None:
        self.client, self.pace, self.fields, self.patience = client, pace, fields, patience
        self.has_ended = False
        self.files = 0  # that it has had
        self._said: list[str] = []
        self._bytes = self._seq = 0
        self._buffer: list[str] = []
        self._buffered = 0
        self._changed = asyncio.Condition()
        self._writer: asyncio.Task[None] | None = None

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._said)

    async def push(self, text: str) -> None:
        """Adds text. Waits while too much is waiting to be sent. Raises Ended, TooLong."""
        for at in range(0, len(text), PIECE_BYTES_MAX // 4):
            await self._push(text[at : at + PIECE_BYTES_MAX // 4])

    async def _push(self, text: str) -> None:
        size = len(text.encode(errors="replace"))
        if self.has_ended:
            raise Ended
        if self._bytes + size > ANSWER_BYTES_MAX:
            raise TooLong
        self._said.append(text)
        self._bytes += size
        if self._writer is None:
            self.pace.answers += 1
            self._writer = asyncio.create_task(self._write())
        async with self._changed:
            self._buffer.append(text)
            self._buffered += size
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._buffered < PIECE_BYTES_MAX or self.has_ended)

    async def tool(self, tool: Tool) -> None:
        """Says what the agent is doing."""
        if self.has_ended:
            raise Ended
        if not self.pace.takes_tool(asyncio.get_running_loop().time()):
            return
        said: dict[str, Any] = {"status": tool.status}
        for name, value, length in (
            ("tool", tool.name, TOOL_MAX),
            ("message", tool.message, TOOL_MESSAGE_MAX),
            ("detail", tool.detail, TOOL_DETAIL_MAX),
            ("call_id", tool.call_id, TOOL_CALL_MAX),
        ):
            if value:
                said[name] = value[:length]
        await self._send("chat.tool_status", said)

    async def file(self, file: files.File) -> None:
        """Sends a file, which belongs to this answer."""
        if self.has_ended:
            raise Ended
        self.files += 1
        await self._send("chat.file", files.payload(file))

    async def end(self, more: Mapping[str, Any]) -> str | None:
        """Says that it is complete, or with `more` how it was cut short. The message's id; None where it had ended."""
        if not await self._stop():
            return None
        with_files = {"files": self.files} if self.files else {}
        return await self._send("chat.done", {"full_text": self.text, **with_files, **more})

    async def fail(self, message: str, retry_after: float | None = None) -> bool:
        """Says that there is no answer, or only what was said so far; False where it had ended."""
        if not await self._stop():
            return False
        more = {} if retry_after is None else {"retry_after_ms": int(retry_after * 1000)}
        await self._send("chat.error", {"code": BACKEND_ERROR, "message": message, **more})
        return True

    async def _stop(self) -> bool:
        if self.has_ended:
            return False
        self.has_ended = True
        if self._writer:
            async with self._changed:
                self._changed.notify_all()
            # Not cancelled: it may be sending, and half a message is worse than one more.
            await asyncio.wait({self._writer})
            self.pace.answers -= 1
        return True

    async def _write(self) -> None:
        """Sends what has come together, not more often than the pace allows."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._buffer or self.has_ended)
                if self.has_ended:  # the whole text follows
                    return
                text = "".join(self._buffer)
                self._buffer.clear()
                self._buffered = 0
                self._changed.notify_all()
            self._seq += 1
            await self._send("chat.stream", {"delta": text, "seq": self._seq})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.interval), self._changed:
                    await self._changed.wait_for(lambda: self.has_ended)

    async def _send(self, kind: str, payload: dict[str, Any]) -> str | None:
        return await send(self.client, kind, {**payload, **self.fields}, self.patience)


async def send(
    client: Client, kind: str, payload: dict[str, Any], patience: float | None = SEND_TIMEOUT, to: str | None = None
) -> str | None:
    """Sends a message, as far as that is possible, to a device, the plain phone, or (None) everybody. Its id, or None."""
    try:
        return await client.send(kind, payload, timeout=patience, device=to, wake=kind in WAKES)
    except TimeoutError:  # nobody there for long, and it keeps nothing: it can ask for the history
        log.warning("%s was given up: there was no connection to the phone", kind)
    except Refused:
        pass  # told where the events are read
    return None
