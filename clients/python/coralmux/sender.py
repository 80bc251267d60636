"""The sender of a pair that resumes: it numbers messages, and holds each until it is acknowledged.

Time is passed in, as seconds of any steady clock. The numbers in the comments are those of the rules in PROTOCOL.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .wire import dumps

if TYPE_CHECKING:
    from .records import Position

KIB, MIB = 1 << 10, 1 << 20
# What is numbered and not acknowledged: messages and bytes.
WINDOWS = {"agent": (256, 192 * KIB), "phone": (64, 16 * MIB)}
# What is held in all, numbered or not.
HELD = {"agent": (256, 8 * MIB), "phone": (64, 16 * MIB)}
GROWN_MAX = MIB  # characters of a piece that grows; what comes then is the next piece
REQUEST_INTERVAL = 1.0
UNKNOWN_WAIT = 30.0  # seconds, at least, after which what was not kept for an unknown reason is put there again
LAGS_MAX = 1024  # answers whose pieces' numbers are kept

NEVER = float("-inf")
WAITS = ("RATE_LIMITED", "DAILY_QUOTA_EXCEEDED", "MONTHLY_QUOTA_EXCEEDED")
VOIDS = ("MESSAGE_TOO_LARGE", "INVALID_MESSAGE")
FLEETING = ("chat.stream", "chat.tool_status")  # what is worth nothing to a peer that is away


@dataclass(eq=False)
class Message:
    """One that is held. `payload` is there as long as a piece may grow, `text` (its JSON) from then on."""

    kind: str
    id: str
    text: str | None
    size: int
    payload: dict[str, Any] | None = None
    answer: str | None = None  # of a piece whose answer has not ended: which one it is
    keep: str = "quiet"  # "wake" or "quiet": how the relay keeps it for an absent peer
    t: int = 0  # Unix time in ms at which its owner sent it
    n: int = 0  # once it is numbered
    f: int = 0  # f to n - 1 are void
    is_kept: bool = False  # the relay has it

    @property
    def is_fleeting(self) -> bool:
        return self.kind in FLEETING

    def settle(self) -> None:
        """A piece that leaves grows no more."""
        if self.text is None:
            self.text = dumps(self.payload)
            self.size = len(self.text.encode())
            self.payload = None


@dataclass(frozen=True)
class Leaving:
    """A record that is to be sent now, for the first time or again."""

    message: Message
    e: str
    n: int
    f: int
    b: int
    keep: str | None = None  # the envelope's, and whether the record has `t`


def answer_of(payload: dict[str, Any]) -> str:
    """Which answer a message belongs to."""
    return dumps([payload.get("chat_id"), payload.get("ref")])


def _is_piece(kind: str, payload: Any) -> bool:
    return kind == "chat.stream" and isinstance(payload, dict) and isinstance(payload.get("delta"), str)


def _is_whole(kind: str, payload: Any) -> bool:
    """Whether it is the end of an answer that contains its pieces."""
    return kind == "chat.done" and isinstance(payload, dict) and isinstance(payload.get("full_text"), str)


class Sender:
    """Numbers and holds one direction's messages.

    Invariants: `acked` < the numbers of `held`, rising, < `next`; `void` <= `next`: the numbers from `void` to `next` - 1
    are void. `cursor` <= len(held): from there on they are to be sent again.
    """

    def __init__(self, role: str, draw_boot: Callable[[], str]) -> None:
        self.role, self.draw_boot = role, draw_boot
        self.waiting: list[Message] = []  # not numbered yet
        self.lags: dict[str, int] = {}  # answer: by how much its pieces are fewer than their owner counts
        self.is_open = False
        self.blocked_until = NEVER
        self.request_at: float | None = None
        self.followed_at = NEVER
        self.careful_below = 0  # while a number below it is held, messages leave one by one
        self.mail_bytes_max: int | None = None  # of a payload that the relay keeps for an absent peer; None: it keeps none
        self.is_absent = False  # the peer is, as the relay says, and what the relay keeps may leave
        self.is_mail_full = False  # the relay keeps no more until the peer has been there
        self.putting: str | None = None  # the id of what was sent to be kept, and is not answered yet
        self.undelivered: list[str] = []  # ids of a phone's messages that the peer never got (9)
        self._begin()

    def _begin(self) -> None:
        self.boot = self.draw_boot()
        self.held: list[Message] = []
        self.next, self.void, self.acked, self.cursor = 1, 1, 0, 0

    @property
    def base(self) -> int:
        return self.held[0].f if self.held else self.void

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held or waits."""
        return not self.held and not self.waiting

    @property
    def is_leaving(self) -> bool:
        """Whether `poll` yields something that neither the time nor an acknowledgement has to come for."""
        if self.is_mailing:
            return self.blocked_until == NEVER and self._next_to_keep() is not None
        if not self.is_open or self.request_at is not None or self.blocked_until != NEVER:
            return False
        if self.cursor < len(self.held):
            return self._may_leave(self.held[self.cursor])
        return bool(self.waiting) and self._fits(self.waiting[0]) and self._may_leave(self.waiting[0])

    @property
    def has_left(self) -> bool:
        """Whether everything has been sent, though it may not have arrived."""
        return not self.waiting and self.cursor == len(self.held)

    @property
    def is_mailing(self) -> bool:
        """Whether what leaves is for the relay to keep."""
        return self.is_absent and self.mail_bytes_max is not None and not self.is_mail_full

    @property
    def is_kept(self) -> bool:
        """Whether the relay has all that is held or waits, and is worth anything to a peer that is away."""
        messages = (*self.held, *self.waiting)
        return all(message.is_kept or message.is_fleeting for message in messages)

    def has_room(self, kind: str, payload: Any) -> bool:
        """Whether one more may come in. An absent phone never makes an agent wait (6)."""
        if self.role == "agent" and not self.is_open:
            return True
        if _is_piece(kind, payload):
            answer = answer_of(payload)
            return self._growing(answer) is not None or all(message.answer != answer for message in self.waiting)
        count, size = self._load(answer_of(payload) if _is_whole(kind, payload) else None)
        count_max, bytes_max = HELD[self.role]
        return count < count_max and (size < bytes_max or count == 0)

    def push(self, kind: str, message_id: str, payload: Any, keep: str = "quiet", t: int | None = None) -> list[str]:
        """Takes a message in; returns the ids of those that are given up for it. ValueError where it is not JSON.

        `keep`: "wake" or "quiet", where the relay keeps it for an absent peer. `t`: now, in Unix ms."""
        text = dumps(payload)
        if self.role == "agent" and kind in FLEETING[1:] and not self.is_open:
            return []  # (6)
        if _is_piece(kind, payload):
            self._push_piece(kind, message_id, payload, len(text.encode()))
            return []
        if kind in ("chat.done", "chat.error") and isinstance(payload, dict):
            self._end_answer(answer_of(payload), _is_whole(kind, payload))
        t = time.time_ns() // 1_000_000 if t is None else t
        self.waiting.append(Message(kind, message_id, text, len(text.encode()), keep=keep, t=t))
        return self._give_up() if self.role == "agent" and not self.is_open else []

    def handle_ack(self, now: float, a: Position, r: bool = False) -> None:
        """`a` is what the peer has taken, `r` whether it lacks what comes after that."""
        lost = []
        if a.e == self.boot and a.n >= self.next:  # 7: this process was set back
            again = self.held + self.waiting
            self.careful_below = len(self.held) + 1 if self._is_careful else 0
            self._begin()
            for message in again:
                message.n, message.is_kept = 0, False
            self.waiting = again
        elif a.e == self.boot and a.n > self.acked:
            gone = sum(message.n <= a.n for message in self.held)
            lost = [one for one in self.held[:gone] if any(first <= one.n <= last for first, last in a.x)]
            del self.held[:gone]
            self.acked, self.cursor = a.n, max(0, self.cursor - gone)
            self.void = max(self.void, a.n + 1)
            if self.held:
                self.held[0].f = max(self.held[0].f, a.n + 1)
        self._handle_lost(lost)
        if r and self.request_at is None:  # 3
            self.request_at = max(now, self.followed_at + REQUEST_INTERVAL)

    def _handle_lost(self, lost: list[Message]) -> None:
        """9: an agent sends them again; a phone's owner decides."""
        if self.role == "phone":
            self.undelivered += [message.id for message in lost]
            return
        for message in reversed([message for message in lost if not message.is_fleeting]):
            message.n, message.is_kept = 0, False
            self.waiting.insert(0, message)

    def take_undelivered(self) -> list[str]:
        """The ids of messages that the peer never got, and will not get."""
        undelivered, self.undelivered = self.undelivered, []
        return undelivered

    def handle_kept(self, message_id: Any) -> bool:
        """The relay has a message (8). Whether it is one that is held."""
        if self.putting == message_id:
            self.putting = None
        kept = [message for message in self.held if message.id == message_id]
        for message in kept:
            message.is_kept = True
        return bool(kept)

    def handle_refused(self, now: float, message_id: Any, code: Any, after: float) -> str | None:
        """The relay refused a message (4). "held": it leaves again by itself; "void": it never will; None: not one that
        is held. `after`: seconds until the relay takes it, 0 where it does not say. A code that is not known changes
        nothing: anybody can invent one, and what did not arrive leaves again when the peer asks for it; what was to be kept
        leaves again later."""
        if was_put := self.putting == message_id:
            self.putting = None
        at = next((at for at, message in enumerate(self.held) if message.id == message_id), None)
        if at is None:
            return None
        if self.is_absent and code == "MESSAGE_TOO_LARGE":  # to be kept
            self.is_mail_full = True
            return "held"
        if code == "MAILBOX_FULL":  # (8)
            if after:
                self.blocked_until = max(self.blocked_until, now + after)
            else:
                self.is_mail_full = True
            return "held"
        if code in VOIDS:
            self._make_void(at)
            return "void"
        if code in WAITS:
            self.cursor = min(self.cursor, at)
            self.blocked_until = max(self.blocked_until, now + after)
            self.careful_below = self.next
        elif code == "PEER_OFFLINE" and (was_put or not self.is_absent):
            self.handle_pause()
        elif was_put:
            self.blocked_until = max(self.blocked_until, now + max(after, UNKNOWN_WAIT))
        return "held"

    def handle_pause(self) -> None:
        self.is_open, self.request_at = False, None
        self.is_absent, self.putting = False, None

    def handle_absent(self) -> None:
        """The relay says that the peer is not there."""
        self.handle_pause()
        self.is_absent = True

    def handle_agreed(self) -> None:
        self.handle_pause()
        self.followed_at = self.blocked_until = NEVER
        self.is_mail_full = False

    def poll(self, now: float) -> Leaving | None:
        """The next record that leaves now, or None."""
        if self.is_mailing and now >= self.blocked_until:
            return self._poll_mail()
        if not self.is_open or now < self.blocked_until:
            return None
        self.blocked_until = NEVER
        if self.request_at is not None:
            if now < self.request_at:
                return None
            self.request_at, self.followed_at, self.cursor = None, now, 0
            for message in self.held:
                message.is_kept = False  # what was kept has been handed out: this is what the peer lacks
        if self.cursor < len(self.held):
            message = self.held[self.cursor]
            if not (self._fits(message) and self._may_leave(message)):
                return None
        elif self.waiting and self._fits(self.waiting[0]) and self._may_leave(self.waiting[0]):
            message = self._number(0)
        else:
            return None
        self.cursor += 1
        return self._leaving(message)

    def _number(self, at: int) -> Message:
        """Numbers one that waits."""
        message = self.waiting.pop(at)
        message.settle()
        message.n, message.f = self.next, self.void
        self.next += 1
        self.void = self.next
        self.held.append(message)
        return message

    def _leaving(self, message: Message) -> Leaving:
        keep = message.keep if self.mail_bytes_max is not None and not message.is_fleeting else None
        return Leaving(message, self.boot, message.n, message.f, self.base, keep)

    def _next_to_keep(self) -> Message | None:
        """What the relay is to keep next: one at a time, so that they are kept in order."""
        if self.putting is not None:
            return None
        messages = (*self.held, *self.waiting)
        return next((message for message in messages if not message.is_kept and not message.is_fleeting), None)

    def _poll_mail(self) -> Leaving | None:
        """8: what the relay is to keep, in order, once."""
        self.blocked_until = NEVER
        message = self._next_to_keep()
        if message is None:
            return None
        if message.size > (self.mail_bytes_max or 0):
            self.is_mail_full = True
            return None
        for at in reversed(range(len(self.held))):
            if self.held[at].is_fleeting:
                self._make_void(at)
        if not message.n:
            if message.kind == "chat.error":  # which ends what pieces that wait belong to
                before = self.waiting.index(message)
                self.waiting[:before] = [one for one in self.waiting[:before] if not one.is_fleeting]
            is_all_sent = self.cursor == len(self.held)
            self._number(self.waiting.index(message))
            self.cursor += is_all_sent
        self.putting = message.id
        return self._leaving(message)

    def deadline(self) -> float | None:
        """When `poll` may yield something because of time alone; None: never."""
        if not (self.is_open or self.is_mailing) or not (self.held or self.waiting):
            return None
        times = [time for time in (self.request_at, self.blocked_until) if time is not None and time != NEVER]
        return max(times, default=None)

    def take_waiting(self) -> list[Message]:
        """Gives up what is held, and returns what has not left yet: the peer resumes no more."""
        waiting, self.waiting = self.waiting, []
        self.held, self.void, self.cursor, self.careful_below = [], self.next, 0, 0
        for message in waiting:
            message.settle()
        return waiting

    @property
    def _is_careful(self) -> bool:
        return bool(self.held) and self.held[0].n < self.careful_below

    def _may_leave(self, message: Message) -> bool:
        """4: the relay has refused something for its rate, and takes no more than one message at a time. Pieces have a
        rate of their own, which refuses nothing."""
        if not self._is_careful or message.kind == "chat.stream":
            return True
        return all(left.kind == "chat.stream" for left in self.held[: self.cursor])

    def _fits(self, message: Message) -> bool:
        count_max, bytes_max = WINDOWS[self.role]
        left = [held for held in self.held[: self.cursor] if not held.is_kept]
        size = sum(held.size for held in left)
        return not left or (len(left) < count_max and size + message.size <= bytes_max)

    def _load(self, without: str | None = None) -> tuple[int, int]:
        """How many messages count toward what may be held, and their bytes: all but pieces that wait and can grow, and
        but those of an answer that ends."""
        counted = [message for message in self.held if message.answer is None or message.answer != without]
        counted += [message for message in self.waiting if message.answer is None]
        return len(counted), sum(message.size for message in counted)

    def _growing(self, answer: str) -> Message | None:
        return next(
            (
                message
                for message in self.waiting
                if message.answer == answer and message.payload and len(message.payload["delta"]) < GROWN_MAX
            ),
            None,
        )

    def _push_piece(self, kind: str, message_id: str, payload: dict[str, Any], size: int) -> None:
        answer = answer_of(payload)
        if (growing := self._growing(answer)) and growing.payload:
            growing.payload["delta"] += payload["delta"]
            growing.size += len(dumps(payload["delta"]).encode()) - 2
            self.lags[answer] = self.lags.get(answer, 0) + 1
            return
        seq, lag = payload.get("seq"), self.lags.get(answer, 0)
        if lag and isinstance(seq, int) and not isinstance(seq, bool):
            payload = payload | {"seq": seq - lag}  # receivers see the pieces counted without a gap
        self.waiting.append(Message(kind, message_id, None, size, dict(payload), answer))

    def _end_answer(self, answer: str, is_contained: bool) -> None:
        """5: a complete text contains the pieces; after any other end they stay, and grow no more."""
        self.lags.pop(answer, None)
        while len(self.lags) > LAGS_MAX:
            del self.lags[next(iter(self.lags))]
        if is_contained:
            self.waiting = [message for message in self.waiting if message.answer != answer or message.answer is None]
            for at in reversed(range(len(self.held))):
                if self.held[at].answer == answer and self.held[at].kind == "chat.stream":
                    self._make_void(at)
        else:
            for message in (*self.held, *self.waiting):
                if message.answer == answer:
                    message.settle()
                    message.answer = None

    def _make_void(self, at: int) -> None:
        message = self.held.pop(at)
        if at < len(self.held):
            self.held[at].f = message.f
        else:
            self.void = message.f
        self.cursor -= at < self.cursor

    def _give_up(self) -> list[str]:
        """6: the oldest go, in the order of their numbers."""
        count_max, bytes_max = HELD[self.role]
        given_up = []
        count, size = self._load()
        while count > count_max or (size > bytes_max and count > 1):
            if self.held:
                message = self.held.pop(0)
                self.cursor = max(0, self.cursor - 1)
            else:
                at = next(at for at, message in enumerate(self.waiting) if message.answer is None)
                message = self.waiting.pop(at)
                self.next += 1
                self.void = self.next
            if not message.is_kept:
                given_up.append(message.id)
            count, size = count - 1, size - message.size
        return given_up
