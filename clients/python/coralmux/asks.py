"""Questions to the person: with buttons where the phone shows them, in plain text where it does not (PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OPEN_MAX = 16
OUTCOMES_MAX = 64
OPTIONS_MAX, LABEL_MAX, TEXT_MAX = 12, 100, 4000
TIMEOUT_MAX = 86_400.0
ALLOW, REJECT = {"yes", "y", "ok"}, {"no", "n"}

Kind = Literal["allow_once", "allow_always", "reject_once", "reject_always"]
# A message's type and payload, and the device that alone gets it; None: everybody.
Send = Callable[[str, dict[str, Any], str | None], Awaitable[Any]]


@dataclass(frozen=True)
class Option:
    """A reply that is offered. `kind` is for the button's looks, and for a plain yes or no."""

    label: str
    kind: Kind | None = None


@dataclass(eq=False)
class Ask:
    """A question to the person, while it is open. The options are named by their numbers, from 1."""

    text: str
    options: tuple[Option, ...]
    free: bool
    default: int | None  # the option's number
    expires_at_ms: int
    fields: Mapping[str, Any] = field(default_factory=dict)  # chat_id, ref
    id: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    reply: asyncio.Future[tuple[int | None, str | None]] = field(default_factory=asyncio.Future)

    def payload(self) -> dict[str, Any]:
        """As `chat.ask` has it."""
        options = [
            {"id": str(number), "label": option.label, **({"kind": option.kind} if option.kind else {})}
            for number, option in enumerate(self.options, start=1)
        ]
        default = {} if self.default is None else {"default": str(self.default)}
        said = {"ask": self.id, "text": self.text, "options": options, "free": self.free, **default}
        return {**said, "expires_at": self.expires_at_ms, **self.fields}

    def plain(self) -> str:
        """As a phone is asked that shows no questions."""
        lines = [self.text, *(f"{number}. {option.label}" for number, option in enumerate(self.options, start=1))]
        if self.default is not None:
            at = time.strftime("%H:%M", time.localtime(self.expires_at_ms / 1000))
            lines.append(f"Without a reply until {at}: {self.options[self.default - 1].label}")
        return "\n".join(lines)

    def take_plain(self, text: str) -> bool:
        """Takes the next message of the conversation as the reply; whether it is one."""
        said = text.strip(" \t\r\n.").casefold()
        for number, option in enumerate(self.options, start=1):
            if said in (str(number), option.label.strip(" \t\r\n.").casefold()):
                return self._take(number, None)
        for words, kind in ((ALLOW, "allow_once"), (REJECT, "reject_once")):
            if said in words:
                for number, option in enumerate(self.options, start=1):
                    if option.kind == kind:
                        return self._take(number, None)
        return self.free and self._take(None, text)

    def take(self, payload: Mapping[str, Any]) -> bool:
        """Takes a `chat.answer`; whether it fits."""
        option, text = payload.get("option"), payload.get("text")
        if isinstance(option, str) and option in map(str, range(1, len(self.options) + 1)):
            return self._take(int(option), None)
        return option is None and self.free and isinstance(text, str) and self._take(None, text[:TEXT_MAX])

    def _take(self, number: int | None, text: str | None) -> bool:
        if not self.reply.done():
            self.reply.set_result((number, text))
        return True

    async def wait(self) -> tuple[int | None, str | None]:
        """The reply: an option's number, or words. The default's number, if any, where the question expires."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.reply, self.remaining)
        return self.default, None

    @property
    def remaining(self) -> float:
        """Seconds until it expires."""
        return max(0.0, self.expires_at_ms / 1000 - time.time())

    def said(self, number: int | None, text: str | None) -> str | None:
        """The reply as whoever asked gets it: an option's label, or the person's own words; None: there is none."""
        return text if number is None else self.options[number - 1].label


def ask_of(
    text: str,
    options: Sequence[str | Option],
    free: bool | None,
    default: str | None,
    timeout: float | None,
) -> Ask:
    """A question within the protocol's bounds. ValueError for what cannot be one."""
    offered = tuple(option if isinstance(option, Option) else Option(str(option)) for option in options)
    offered = tuple(Option(option.label[:LABEL_MAX], option.kind) for option in offered)
    labels = [option.label for option in offered]
    if not text.strip() or len(offered) > OPTIONS_MAX or not all(label.strip() for label in labels):
        raise ValueError(f"a question has a text, and at most {OPTIONS_MAX} options with a text each")
    if len(set(labels)) < len(labels):
        raise ValueError("two options of a question have the same text")
    if default is not None and default[:LABEL_MAX] not in labels:
        raise ValueError(f"the default, {default!r}, is none of the question's options")
    number = None if default is None else labels.index(default[:LABEL_MAX]) + 1
    seconds = TIMEOUT_MAX if timeout is None else max(0.0, min(timeout, TIMEOUT_MAX))
    free = free if offered and free is not None else not offered or free is None
    return Ask(text[:TEXT_MAX], offered, free, number, int((time.time() + seconds) * 1000))


class Asks:
    """The questions that are open, and what came of the newest others."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.open: dict[str, Ask] = {}
        self._outcomes: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @property
    def is_full(self) -> bool:
        return len(self.open) >= OPEN_MAX

    async def show(self, ask: Ask) -> str | None:
        """Asks with buttons, and waits for the reply, the default, or None where there is neither."""
        if self.is_full:
            return ask.said(ask.default, None)
        self.open[ask.id] = ask
        over: dict[str, Any] = {"outcome": "cancelled"}
        try:
            await self._send("chat.ask", ask.payload(), None)
            number, text = await ask.wait()
            over = {"outcome": "answered"} if ask.reply.done() and not ask.reply.cancelled() else {"outcome": "expired"}
            over |= ({} if number is None else {"option": str(number)}) | ({} if text is None else {"text": text})
            return ask.said(number, text)
        finally:
            del self.open[ask.id]
            self._outcomes[ask.id] = over = {"ask": ask.id, **over, **ask.fields}
            while len(self._outcomes) > OUTCOMES_MAX:
                self._outcomes.popitem(last=False)
            await self._send("chat.answered", over, None)

    async def handle_agreed(self, phone: str) -> None:
        """There are new keys, or a phone without encryption: it may not know what is open."""
        for ask in list(self.open.values()):
            await self._send("chat.ask", ask.payload(), phone)

    async def handle_answer(self, message_id: str | None, payload: Any, asker: str | None = None) -> None:
        """A `chat.answer`. The first one that fits decides. What is wrong with it, or too late, `asker` alone hears."""
        payload = payload if isinstance(payload, dict) else {}
        name = payload.get("ask")
        name = name if isinstance(name, str) else ""
        if ask := self.open.get(name):
            if not ask.take(payload):
                words = "the answer is none of the question's options"
                error = {"code": "BACKEND_ERROR", "message": words, "ref": message_id}
                await self._send("chat.error", error, asker)
            return
        chat = payload.get("chat_id")
        unknown = {"ask": name[:64], "outcome": "unknown", **({"chat_id": chat} if isinstance(chat, str) else {})}
        await self._send("chat.answered", self._outcomes.get(name, unknown), asker)
