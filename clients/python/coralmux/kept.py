"""What frameworks keep of a conversation, in memory, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

CHATS_MAX = 64  # the one that was quiet for the longest goes first

T = TypeVar("T")


class Kept(Generic[T]):
    """One thing for each conversation, made when it is first spoken in."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: OrderedDict[str, T] = OrderedDict()

    def __getitem__(self, chat: str) -> T:
        if chat not in self._kept:
            self[chat] = self._make()
        self._kept.move_to_end(chat)
        return self._kept[chat]

    def __setitem__(self, chat: str, value: T) -> None:
        self._kept[chat] = value
        while len(self._kept) > CHATS_MAX:
            self._kept.popitem(last=False)
