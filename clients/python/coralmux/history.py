"""What was said, for the model's context and for `chat.history`. In memory, within bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .question import Image, Turn
from .wire import dumps

CHATS_MAX = 64  # the one that was quiet for the longest goes first
TURNS_MAX = 200  # of a conversation; the oldest go first
BYTES_MAX = 16 << 20  # of a conversation, images too; the oldest turns go first
ALL_BYTES_MAX = 64 << 20  # of all; the conversation that was quiet for the longest goes first
TURNS_WITH_IMAGES = 6  # counted from the end: those whose images are kept
assert BYTES_MAX <= ALL_BYTES_MAX


@dataclass
class _Said:
    turn: Turn
    at_ms: int
    image_count: int
    file_count: int  # of the agent's
    finish: str | None  # why an answer is not whole
    notice: str
    size: int

    def as_json(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.turn.role, "text": self.turn.text, "ts": self.at_ms}
        if self.image_count:
            message["images"] = self.image_count
        if self.file_count:
            message["files"] = self.file_count
        if self.finish:
            message["finish"] = self.finish
        if self.notice:
            message["notice"] = self.notice
        return message


def _size(turn: Turn, notice: str) -> int:
    images = sum(len(image.data) + len(image.mime) for image in turn.images)
    return 64 + len(notice) + len(turn.text.encode()) + images


@dataclass
class History:
    """All conversations of a pairing; the one that was spoken in last is the last one."""

    chats: dict[str, list[_Said]] = field(default_factory=dict)

    def push(
        self,
        chat: str,
        role: Literal["user", "assistant"],
        text: str,
        at_ms: int,
        images: tuple[Image, ...] = (),
        finish: str | None = None,
        notice: str = "",
        file_count: int = 0,
    ) -> None:
        """Adds what was said."""
        turns = self.chats.pop(chat, [])
        self.chats[chat] = turns
        turn = Turn(role, text, images)
        turns.append(_Said(turn, at_ms, len(images), file_count, finish, notice, _size(turn, notice)))
        for said in turns[:-TURNS_WITH_IMAGES]:
            if said.turn.images:
                said.turn = replace(said.turn, images=())
                said.size = _size(said.turn, said.notice)
        size = sum(said.size for said in turns)
        while len(turns) > TURNS_MAX or (size > BYTES_MAX and len(turns) > 1):
            size -= turns.pop(0).size
        while len(self.chats) > 1 and (len(self.chats) > CHATS_MAX or self._size() > ALL_BYTES_MAX):
            del self.chats[next(iter(self.chats))]

    def _size(self) -> int:
        return sum(len(name) + sum(said.size for said in turns) for name, turns in self.chats.items())

    def forget_question(self, chat: str) -> None:
        """Takes the last turn back where it was the person's: it was not answered."""
        if (turns := self.chats.get(chat)) and turns[-1].turn.role == "user":
            turns.pop()

    def context(self, chat: str, turns_max: int) -> list[Turn]:
        """The last turns of a conversation, oldest first; they begin with the person's."""
        turns = [said.turn for said in self.chats.get(chat, [])][-turns_max:] if turns_max else []
        while turns and turns[0].role == "assistant":
            turns.pop(0)
        return turns

    def as_json(self, chat: str, limit: int, bytes_max: int) -> tuple[list[dict[str, Any]], bool]:
        """The last turns as `chat.history.result` has them, oldest first, as many as `bytes_max` of JSON take; and
        whether there are older ones."""
        turns, found, left = self.chats.get(chat, []), [], bytes_max
        for said in turns[: -limit - 1 : -1]:
            message = said.as_json()
            left -= len(dumps(message).encode()) + 1
            if left < 0:
                break
            found.append(message)
        return found[::-1], len(found) < len(turns)
