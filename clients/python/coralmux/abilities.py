"""What phones show beyond text, as each `chat.send` says (PROTOCOL.md): questions with buttons, files of the agent's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

CHATS_MAX = 64  # conversations; the one that was quiet for the longest goes first
NOTHING: frozenset[str] = frozenset()

Ability = Literal["asks", "files"]


class Abilities:
    """By conversation; of one in which nobody has spoken yet, as in the one that was spoken in last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()

    def note(self, chat: str, payload: Mapping[str, Any]) -> None:
        """A `chat.send` has come."""
        self._known.pop(chat, None)
        said = {name: payload.get(name) for name in ("asks", "files")}
        self._known[chat] = frozenset(name for name, value in said.items() if value == 1 and not isinstance(value, bool))
        while len(self._known) > CHATS_MAX:
            self._known.popitem(last=False)

    def has(self, chat: str, ability: Ability) -> bool:
        """Whether the phone of this conversation shows that, as far as anybody knows."""
        return ability in self._known.get(chat, next(reversed(self._known.values()), NOTHING))
