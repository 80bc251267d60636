"""Records and acknowledgements: what the plaintexts of a pair that resumes hold (PROTOCOL.md, "Resume")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .wire import dumps

NUMBER_MAX = (1 << 53) - 1
LOST_MAX = 16  # ranges of numbers in one acknowledgement
_BOOT = re.compile(r"[A-Za-z0-9_-]{11}")


class Malformed(ValueError):
    """A plaintext is no record, or no acknowledgement; the text says why."""


@dataclass(frozen=True)
class Position:
    """All messages of boot `e` up to `n`, but for the ranges in `x`; or, of one message, its boot and number."""

    e: str
    n: int
    x: tuple[tuple[int, int], ...] = ()

    def json(self) -> dict[str, Any]:
        return {"e": self.e, "n": self.n} | ({"x": [list(lost) for lost in self.x]} if self.x else {})


NOTHING = Position("", 0)


@dataclass(frozen=True)
class Record:
    e: str
    n: int
    f: int
    b: int
    p: object
    a: Position | None = None
    o: Position | None = None
    t: int | None = None


@dataclass(frozen=True)
class Ack:
    a: Position
    r: bool = False

    def text(self) -> str:
        more = {"r": True} if self.r else {}
        return dumps({"a": self.a.json()} | more)


def read_record(value: Any) -> Record:
    """The record that a plaintext's JSON value is. Raises Malformed."""
    _check_object(value, "e", "n", "b", "p")
    e, n, b = _boot(value, "e"), _number(value, "n"), _number(value, "b")
    f = _number(value, "f") if "f" in value else n
    if not b <= f <= n:
        raise Malformed("its numbers are not in order")
    a = _position(value["a"], empty_allowed=True) if "a" in value else None
    o = _position(value["o"]) if "o" in value else None
    if o and o.e == e:
        raise Malformed("it names its own process as an earlier one")
    t = _number(value, "t", 0) if "t" in value else None
    return Record(e, n, f, b, value["p"], a, o, t)


def read_ack(value: Any) -> Ack:
    """The acknowledgement that a plaintext's JSON value is. Raises Malformed."""
    _check_object(value, "a")
    r = value.get("r", False)
    if not isinstance(r, bool):
        raise Malformed("r is neither true nor false")
    return Ack(_position(value["a"], empty_allowed=True), r)


def record_text(e: str, n: int, f: int, b: int, a: Position, payload_text: str, t: int | None = None) -> str:
    """The plaintext of a record around a payload that is JSON already."""
    head = {"e": e, "n": n} | ({"f": f} if f < n else {}) | {"b": b, "a": a.json()} | ({} if t is None else {"t": t})
    return f'{dumps(head)[:-1]},"p":{payload_text}}}'


def _check_object(value: Any, *names: str) -> None:
    if not isinstance(value, dict):
        raise Malformed("it is not an object")
    for name in names:
        if name not in value:
            raise Malformed(f"{name} is missing")


def _boot(value: Any, name: str) -> str:
    boot = value[name]
    if not isinstance(boot, str) or not _BOOT.fullmatch(boot):
        raise Malformed(f"{name} is not 11 characters of base64url")
    return boot


def _number(value: Any, name: str | int, lowest: int = 1) -> int:
    number = value[name]
    if not isinstance(number, int) or isinstance(number, bool) or not lowest <= number <= NUMBER_MAX:
        raise Malformed(f"{name} is not a whole number from {lowest} to 2^53 - 1")
    return number


def _position(value: Any, empty_allowed: bool = False) -> Position:
    _check_object(value, "e", "n")
    is_empty = empty_allowed and value["e"] == "" and value["n"] == 0 and not isinstance(value["n"], bool | float)
    x = _lost(value["x"], _number(value, "n", 0)) if empty_allowed and "x" in value else ()
    if is_empty and not x:
        return NOTHING
    return Position(_boot(value, "e"), _number(value, "n", 0 if empty_allowed else 1), x)


def _lost(value: Any, highest: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) > LOST_MAX:
        raise Malformed(f"x is not a list of at most {LOST_MAX} ranges")
    lost, below = [], 0
    for one in value:
        if not isinstance(one, list) or len(one) != 2:
            raise Malformed("x has something that is not a range")
        first, last = _number(dict(enumerate(one)), 0), _number(dict(enumerate(one)), 1)
        if not below < first <= last <= highest:
            raise Malformed("the ranges of x are not in order")
        lost.append((first, last))
        below = last
    return tuple(lost)
