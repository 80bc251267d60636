"""A question as phones send it (`chat.send`): read as loosely as can be, and refused in words that are true."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .asks import Ask, Option, ask_of

IMAGES_MAX = 16
CHAT_BYTES_MAX = 256  # of a conversation's name
AGENT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what names one of several agents
MIME = re.compile(r"image/[A-Za-z0-9+.-]{1,64}")


class QuestionError(ValueError):
    """The question cannot be answered; the text says why."""


@dataclass(frozen=True)
class Image:
    """An image that the phone sent."""

    mime: str
    data: bytes = field(repr=False)

    @property
    def base64(self) -> str:
        """Its bytes in standard base64."""
        return base64.b64encode(self.data).decode()

    @property
    def url(self) -> str:
        """As a data URL, which AI servers take."""
        return f"data:{self.mime};base64,{self.base64}"


@dataclass(frozen=True)
class Turn:
    """Something that was said earlier. The images of old turns are forgotten."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Question:
    """What the person asks: a text, images, or both.

    `chat_id` names the conversation, and is empty where the phone has only one; `history` is what was said in it
    before, oldest first.
    """

    text: str
    images: tuple[Image, ...] = ()
    chat_id: str = ""
    id: str | None = None
    history: tuple[Turn, ...] = ()
    _ask: Callable[[Ask], Awaitable[str | None]] | None = field(default=None, repr=False, compare=False)

    async def ask(
        self,
        text: str,
        options: Sequence[str | Option] = (),
        *,
        free: bool | None = None,
        default: str | None = None,
        timeout: float | None = None,
    ) -> str | None:
        """Asks the person something, while this question is being answered, and waits for the reply.

        `options` (12 at most) are the replies that are offered; `free` is whether other words will do, too. After
        `timeout` seconds (24 hours at most, which is also the default) the reply is the option `default`, or None.
        """
        if self._ask is None:
            raise RuntimeError("this question does not come from a phone: there is nobody to ask")
        return await self._ask(ask_of(text, options, free, default, timeout))


def chat_of(payload: Any) -> str | None:
    """The conversation that a payload names. QuestionError where it names none that there can be."""
    chat = payload.get("chat_id") if isinstance(payload, dict) else None
    if chat is not None and not isinstance(chat, str):
        raise QuestionError("the question's chat_id is not a string")
    if len((chat or "").encode()) > CHAT_BYTES_MAX:
        raise QuestionError("the chat_id is too long")
    return chat


def agent_of(payload: Any) -> str | None:
    """Which of several agents a payload names; None: the first. QuestionError where it names none that there can be."""
    agent = payload.get("agent") if isinstance(payload, dict) else None
    if agent is not None and not (isinstance(agent, str) and AGENT.fullmatch(agent)):
        raise QuestionError("the question's agent is none")
    return agent


def read(payload: Any) -> tuple[str, tuple[Image, ...]]:
    """The text and the images of a question. Raises QuestionError."""
    if not isinstance(payload, dict):
        raise QuestionError("the question is not a JSON object")
    text, images = payload.get("text"), payload.get("images")
    if text is not None and not isinstance(text, str):
        raise QuestionError("the question's text is not a string")
    if images is not None and not isinstance(images, list):
        raise QuestionError("the question's images are not a list")
    if len(images or []) > IMAGES_MAX:
        raise QuestionError("the question has too many images")
    if not text and not images:
        raise QuestionError("the question has neither text nor images")
    return text or "", tuple(map(_image, images or []))


def _image(picture: Any) -> Image:
    refused = QuestionError("an image of the question is not image data in base64")
    if not isinstance(picture, dict):
        raise refused
    mime, data = picture.get("mime") or "image/jpeg", picture.get("data")
    if not isinstance(mime, str) or not MIME.fullmatch(mime) or not isinstance(data, str):
        raise refused
    try:
        return Image(mime, base64.b64decode(data + "=" * (-len(data) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise refused from None
