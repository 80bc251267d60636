"""JSON between different programs: tolerant in reading, strict in writing.

JSON allows text and numbers that other programs do not: half a surrogate pair, numbers out of range, duplicate keys,
unlimited nesting. None of them is a reason to end a connection.
"""

from __future__ import annotations

import json
import sys
from typing import Any

DIGITS_MAX = 300  # of an integer; no float holds more


class Unreadable(ValueError):
    """A message that is passed over; the text says why."""


class _Object(dict[str, Any]):
    """An object, and the keys that it had twice."""

    repeated: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.repeated = frozenset(keys if len(keys) >= 1000 else (key for key in keys if keys.count(key) > 1))
    return found


def _float(text: str) -> float:
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _int(text: str) -> int | float:
    return int(text) if len(text) <= DIGITS_MAX else _float(text)


def _constant(_: str) -> None:
    """NaN and the infinities, which JSON does not have and some programs write all the same."""
    return None


def mended(text: str) -> str:
    """The text with U+FFFD in place of half a surrogate pair: what UTF-8 has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _mended(value: Any) -> Any:
    """The value with all of its texts mended. Not by recursion: it may be nested deeply."""
    root = [value]
    open_ = [(root, 0)]
    while open_:
        parent, key = open_.pop()
        inner = parent[key]
        if isinstance(inner, str):
            parent[key] = mended(inner)
        elif isinstance(inner, list):
            open_ += [(inner, index) for index in range(len(inner))]
        elif isinstance(inner, dict):
            if not all(map(str.isascii, inner)):
                repeated: frozenset[str] = getattr(inner, "repeated", frozenset())
                inner = parent[key] = _Object((mended(name), item) for name, item in inner.items())
                inner.repeated = repeated
            open_ += [(inner, name) for name in inner]
    return root[0]


def printable(text: object) -> str:
    """A text for a terminal: what that would act on, but for line breaks and tabs, is written as escapes."""
    return "".join(
        c if c.isprintable() or c in "\n\t\u200d" else c.encode("unicode_escape").decode() for c in str(text)
    )


def loads(text: str) -> Any:
    """The value of a JSON text, with what no program can hold replaced. ValueError where it is not JSON."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _mended(value) if "\\u" in text else value


def dumps(value: Any) -> str:
    """A value's JSON text, in compact form. ValueError for what JSON does not have."""
    return mended(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def envelope(text: str | bytes) -> tuple[str, str | None, Any, str | None]:
    """Type, id, payload and device of a message. Raises Unreadable."""
    try:
        message = loads(text if isinstance(text, str) else text.decode())
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if not isinstance(message, dict):
        raise Unreadable("not an object")
    repeated: frozenset[str] = getattr(message, "repeated", frozenset())
    if twice := repeated & {"type", "id", "payload", "device"}:
        raise Unreadable(f"it has {min(twice)} twice")
    kind, message_id, payload, device = (message.get(name) for name in ("type", "id", "payload", "device"))
    if not isinstance(kind, str) or "\ufffd" in kind or not isinstance(message_id, str | None):
        raise Unreadable("its type or id is no text")
    return kind, message_id, {} if payload is None else payload, device if isinstance(device, str) else None
