"""Resume: both ends number, acknowledge and resend, so that no break loses a message and none arrives twice.

`Resume` is one end's side of it, without any I/O: time (seconds of any steady clock), randomness and records are passed
in. `handle_*` takes something in, `poll` yields what is to be sealed and sent, `deadline` says when to poll again.
PROTOCOL.md's chapter "Resume" has the rules; their numbers are in the comments.
"""

import base64
import os
from dataclasses import dataclass, field

from .records import NOTHING, Ack, Position, record_text
from .wire import dumps

BOOT_BYTES = 8
KIB, MIB = 1 << 10, 1 << 20

# Sender: what is numbered and not acknowledged, and what may wait besides; the agent's second line includes the first.
WINDOWS = {"agent": (256, 192 * KIB), "phone": (64, 16 * MIB)}
HELD = {"agent": (256, 8 * MIB), "phone": (64, 16 * MIB)}
GROWN_MAX = MIB  # characters of a piece that grows; what comes then is the next piece
REQUEST_INTERVAL = 1.0
LAGS_MAX = 1024  # answers whose pieces' numbers are kept

# Receiver
BOOTS_MAX = 4
AHEAD_MAX, AHEAD_BYTES_MAX = 256, MIB
ASK_INTERVAL = 2.0
ACK_MESSAGES, ACK_BYTES, ACK_AFTER = 64, 128 * KIB, 1.0
ACK_INTERVAL_COUNTED = 10.0  # where the relay counts an ack as a message

# Agreement
REPEAT_FIRST, REPEAT_MAX = 2.0, 30.0

NEVER = float("-inf")
WAITS = ("RATE_LIMITED", "DAILY_QUOTA_EXCEEDED", "MONTHLY_QUOTA_EXCEEDED")
VOIDS = ("MESSAGE_TOO_LARGE", "INVALID_MESSAGE")


@dataclass(eq=False)
class Message:
    """One that is held. `payload` is there as long as a piece may grow, `text` (its JSON) from then on."""

    kind: str
    id: str
    text: str | None
    size: int
    payload: dict | None = None
    answer: tuple | None = None  # of a piece whose answer has not ended: which one it is
    n: int | None = None
    f: int | None = None  # f to n - 1 are void

    def settle(self):
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


def answer_of(payload):
    """Which answer a message belongs to."""
    return payload.get("chat_id"), payload.get("ref")


def _is_piece(kind, payload):
    return kind == "chat.stream" and isinstance(payload, dict) and isinstance(payload.get("delta"), str)


def _is_whole(kind, payload):
    """Whether it is the end of an answer that contains its pieces."""
    return kind == "chat.done" and isinstance(payload, dict) and isinstance(payload.get("full_text"), str)


class Sender:
    """Numbers and holds one direction's messages.

    Invariants: `acked` < the numbers of `held`, rising, < `next`; `void` <= `next`: the numbers from `void` to `next` - 1
    are void. `cursor` <= len(held): from there on they are to be sent again.
    """

    def __init__(self, role, draw_boot):
        self.role, self.draw_boot = role, draw_boot
        self.waiting = []  # not numbered yet
        self.lags = {}  # answer: by how much its pieces are fewer than their owner counts
        self.is_open = False
        self.blocked_until = NEVER
        self.request_at, self.followed_at = None, NEVER
        self._begin()

    def _begin(self):
        self.boot = self.draw_boot()
        self.held, self.next, self.void, self.acked, self.cursor = [], 1, 1, 0, 0

    @property
    def base(self):
        return self.held[0].f if self.held else self.void

    @property
    def is_idle(self):
        """Whether nothing is held or waits."""
        return not self.held and not self.waiting

    @property
    def is_leaving(self):
        """Whether `poll` yields something that neither the time nor an acknowledgement has to come for."""
        if not self.is_open or self.request_at is not None or self.blocked_until != NEVER:
            return False
        return self.cursor < len(self.held) or bool(self.waiting and self._fits(self.waiting[0]))

    @property
    def has_left(self):
        """Whether everything has been sent, though it may not have arrived."""
        return not self.waiting and self.cursor == len(self.held)

    def has_room(self, kind, payload):
        """Whether one more may come in. An absent phone never makes an agent wait (6)."""
        if self.role == "agent" and not self.is_open:
            return True
        if _is_piece(kind, payload):
            answer = answer_of(payload)
            return self._growing(answer) is not None or all(message.answer != answer for message in self.waiting)
        count, size = self._load(answer_of(payload) if _is_whole(kind, payload) else None)
        count_max, bytes_max = HELD[self.role]
        return count < count_max and (size < bytes_max or count == 0)

    def push(self, kind, message_id, payload):
        """Takes a message in; returns the ids of those that are given up for it. ValueError where it is not JSON."""
        text = dumps(payload)
        if _is_piece(kind, payload):
            self._push_piece(kind, message_id, payload, len(text.encode()))
            return []
        if kind in ("chat.done", "chat.error") and isinstance(payload, dict):
            self._end_answer(answer_of(payload), _is_whole(kind, payload))
        self.waiting.append(Message(kind, message_id, text, len(text.encode())))
        return self._give_up() if self.role == "agent" and not self.is_open else []

    def handle_ack(self, now, a, r=False):
        """`a` is what the peer has taken, `r` whether it lacks what comes after that."""
        if a.e == self.boot and a.n >= self.next:  # 7: this process was set back
            again = self.held + self.waiting
            self._begin()
            self.waiting = again
        elif a.e == self.boot and a.n > self.acked:
            gone = sum(message.n <= a.n for message in self.held)
            del self.held[:gone]
            self.acked, self.cursor = a.n, max(0, self.cursor - gone)
            self.void = max(self.void, a.n + 1)
            if self.held:
                self.held[0].f = max(self.held[0].f, a.n + 1)
        if r and self.request_at is None:  # 3
            self.request_at = max(now, self.followed_at + REQUEST_INTERVAL)

    def handle_refused(self, now, message_id, code, after):
        """The relay refused a message (4). "held": it leaves again by itself; "void": it never will; None: not one that
        is held. `after`: seconds until the relay takes it."""
        at = next((at for at, message in enumerate(self.held) if message.id == message_id), None)
        if at is None:
            return None
        if code in VOIDS:
            self._make_void(at)
            return "void"
        if code in WAITS:
            self.cursor = min(self.cursor, at)
            self.blocked_until = max(self.blocked_until, now + after)
        else:  # PEER_OFFLINE, and what does not exist yet
            self.handle_pause()
        return "held"

    def handle_pause(self):
        self.is_open, self.request_at = False, None

    def handle_agreed(self):
        self.handle_pause()
        self.followed_at = self.blocked_until = NEVER

    def poll(self, now):
        """The next record that leaves now, or None."""
        if not self.is_open or now < self.blocked_until:
            return None
        self.blocked_until = NEVER
        if self.request_at is not None:
            if now < self.request_at:
                return None
            self.request_at, self.followed_at, self.cursor = None, now, 0
        if self.cursor < len(self.held):
            message = self.held[self.cursor]
        elif self.waiting and self._fits(self.waiting[0]):
            message = self.waiting.pop(0)
            message.settle()
            message.n, message.f = self.next, self.void
            self.next += 1
            self.void = self.next
            self.held.append(message)
        else:
            return None
        self.cursor += 1
        return Leaving(message, self.boot, message.n, message.f, self.base)

    def deadline(self):
        """When `poll` may yield something because of time alone; None: never."""
        if not self.is_open or not (self.held or self.waiting):
            return None
        times = [time for time in (self.request_at, self.blocked_until) if time not in (None, NEVER)]
        return max(times, default=None)

    def take_waiting(self):
        """Forgets everything, and returns what has not left yet: the peer resumes no more."""
        waiting, self.waiting = self.waiting, []
        self._begin()
        for message in waiting:
            message.settle()
        return waiting

    def _fits(self, message):
        count_max, bytes_max = WINDOWS[self.role]
        size = sum(held.size for held in self.held)
        return not self.held or (len(self.held) < count_max and size + message.size <= bytes_max)

    def _load(self, without=None):
        """How many messages count toward what may be held, and their bytes: all but pieces that wait and can grow, and
        but those of an answer that ends."""
        counted = [message for message in self.held if message.answer is None or message.answer != without]
        counted += [message for message in self.waiting if message.answer is None]
        return len(counted), sum(message.size for message in counted)

    def _growing(self, answer):
        return next(
            (
                message
                for message in self.waiting
                if message.answer == answer and message.payload and len(message.payload["delta"]) < GROWN_MAX
            ),
            None,
        )

    def _push_piece(self, kind, message_id, payload, size):
        answer = answer_of(payload)
        if growing := self._growing(answer):
            growing.payload["delta"] += payload["delta"]
            growing.size += len(dumps(payload["delta"]).encode()) - 2
            self.lags[answer] = self.lags.get(answer, 0) + 1
            return
        seq, lag = payload.get("seq"), self.lags.get(answer, 0)
        if lag and isinstance(seq, int) and not isinstance(seq, bool):
            payload = payload | {"seq": seq - lag}  # receivers see the pieces counted without a gap
        self.waiting.append(Message(kind, message_id, None, size, dict(payload), answer))

    def _end_answer(self, answer, is_contained):
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

    def _make_void(self, at):
        message = self.held.pop(at)
        if at < len(self.held):
            self.held[at].f = message.f
        else:
            self.void = message.f
        self.cursor -= at < self.cursor

    def _give_up(self):
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
            given_up.append(message.id)
            count, size = count - 1, size - message.size
        return given_up


@dataclass
class Receiver:
    """Takes one direction's records in order.

    Invariant: the numbers of `ahead` are above `boots[current]`, the number that is expected next.
    """

    counted: bool = False  # whether the relay counts an ack as a message
    is_full: bool = False  # whether what has been taken waits to be looked at: then nothing is acknowledged by itself
    boots: dict = field(default_factory=dict)  # boot: its next number; the newest last
    missed: int = 0
    ahead: dict = field(default_factory=dict)  # number: (record, size, item)
    ahead_bytes: int = 0
    current: str | None = None
    gap: int = 0  # the highest f that was above the next number
    asked_at: float = NEVER
    acked_at: float = NEVER
    untold: int = 0  # messages and bytes, since the last acknowledgement
    untold_bytes: int = 0
    untold_since: float | None = None
    owed: bool = False  # an ack is due at once
    quiet_until: float = NEVER  # the relay takes none before

    @property
    def position(self):
        return Position(self.current, self.boots[self.current] - 1) if self.current else NOTHING

    @property
    def is_missing(self):
        return self.current is not None and self.boots[self.current] < self.gap

    def handle(self, now, record, size, item):
        """The items of what is taken with this record, and how many messages are missed."""
        self._turn_to(record)
        missed = max(0, record.b - self._next)  # 2
        self._next += missed
        self.missed += missed
        taken = []
        if record.n < self._next:  # 3
            self._count(now, size)
        elif record.f <= self._next:  # 4
            self._take(record, item, taken)
            self._count(now, size)
        else:  # 5
            self.gap = max(self.gap, record.f)
            self._hold(record, size, item)
        self._look_ahead(now, taken)
        return taken, missed

    @property
    def _next(self):
        return self.boots[self.current]

    @_next.setter
    def _next(self, value):
        self.boots[self.current] = value

    def _turn_to(self, record):
        """1: the newest record's boot is the current one."""
        if record.e == self.current:
            return
        self.drop_ahead()
        self.boots[record.e] = self.boots.pop(record.e, record.b)
        self.current = record.e
        self._forget()

    def _forget(self):
        while len(self.boots) > BOOTS_MAX:
            del self.boots[next(iter(self.boots))]

    def _take(self, record, item, taken):
        self._next = record.n + 1
        if record.o is None:
            taken.append(item)
        elif self.boots.get(record.o.e, 0) <= record.o.n:
            if record.o.e not in self.boots:  # known from now on, as one before the current one
                self.boots[record.o.e] = 0
                self.boots[self.current] = self.boots.pop(self.current)
            self.boots[record.o.e] = record.o.n + 1
            self._forget()
            taken.append(item)

    def _hold(self, record, size, item):
        old = self.ahead.get(record.n)
        count = len(self.ahead) + (old is None)
        total = self.ahead_bytes + size - (old[1] if old else 0)
        if count <= AHEAD_MAX and total <= AHEAD_BYTES_MAX:
            self.ahead[record.n] = record, size, item
            self.ahead_bytes = total

    def _look_ahead(self, now, taken):
        for n in sorted(self.ahead):
            record, size, item = self.ahead[n]
            if record.f > self._next:
                continue
            del self.ahead[n]
            self.ahead_bytes -= size
            if n >= self._next:
                self._take(record, item, taken)
                self._count(now, size)

    def drop_ahead(self):
        self.ahead, self.ahead_bytes, self.gap = {}, 0, 0

    def _count(self, now, size):
        self.untold += 1
        self.untold_bytes += size
        if self.untold_since is None:
            self.untold_since = now

    def handle_refused(self, until):
        """The relay refused an ack, and takes none until then."""
        self.quiet_until, self.owed = until, True

    def told(self):
        """What has been taken is acknowledged: returns the acknowledgement."""
        self.untold, self.untold_bytes, self.untold_since, self.owed = 0, 0, None, False
        return self.position

    def poll(self, now):
        """The ack that is due now, or None."""
        if self.is_missing and now >= self.asked_at + ASK_INTERVAL:
            self.asked_at = now
            return Ack(self.told(), r=True)
        due = self._due_at()
        if due is not None and now >= due:
            self.acked_at = now
            return Ack(self.told())
        return None

    def _due_at(self):
        if self.is_full:
            return None
        if self.owed or self.untold >= ACK_MESSAGES or self.untold_bytes >= ACK_BYTES:
            due = NEVER
        elif self.untold_since is not None:
            due = self.untold_since + ACK_AFTER
        else:
            return None
        return max(due, self.quiet_until, self.acked_at + ACK_INTERVAL_COUNTED if self.counted else NEVER)

    def deadline(self):
        asking = self.asked_at + ASK_INTERVAL if self.is_missing else None
        return min((time for time in (asking, self._due_at()) if time is not None), default=None)


class Resume:
    """One end of a pair that resumes: its sender, its receiver, and the agreement between them."""

    def __init__(self, role, random=os.urandom):
        def draw_boot():
            return base64.urlsafe_b64encode(random(BOOT_BYTES)).decode().rstrip("=")

        self.sender, self.receiver = Sender(role, draw_boot), Receiver()
        self.is_agreed = False
        self.repeat_at, self.repeat_delay = NEVER, REPEAT_FIRST
        self.is_said = False  # this end's first ack has left

    def handle_pause(self):
        """The connection is gone or new, or the peer has come or left: keys are to be agreed."""
        self.is_agreed = False
        self.sender.handle_pause()
        self.receiver.drop_ahead()

    def handle_agreed(self):
        """New keys are in use."""
        self.handle_pause()
        self.sender.handle_agreed()
        self.receiver.asked_at = NEVER
        self.is_agreed, self.is_said, self.repeat_delay = True, False, REPEAT_FIRST

    def handle_ack(self, now, ack):
        """An ack that was sealed with the keys in use."""
        if not self.is_agreed:
            self.sender.handle_ack(now, ack.a)
            return
        if not self.sender.is_open:
            self.sender.is_open = True
        elif ack.r:
            self.receiver.owed = True
        self.sender.handle_ack(now, ack.a, ack.r)

    def handle_record(self, now, record, size, item):
        """The items of what is taken with this record, and how many messages are missed."""
        if record.a:
            self.sender.handle_ack(now, record.a)
        return self.receiver.handle(now, record, size, item)

    def poll(self, now):
        """The next Ack or Leaving to seal and send, or None."""
        if not self.is_agreed:
            return None
        if not self.is_said or (not self.sender.is_open and now >= self.repeat_at):
            if self.is_said:
                self.repeat_delay = min(2 * self.repeat_delay, REPEAT_MAX)
            self.is_said, self.repeat_at = True, now + self.repeat_delay
            return Ack(self.receiver.told(), r=True)
        return self.receiver.poll(now) or self.sender.poll(now)

    def text(self, leaving):
        """The plaintext of what `poll` yielded."""
        if isinstance(leaving, Ack):
            return leaving.text()
        return record_text(leaving.e, leaving.n, leaving.f, leaving.b, self.receiver.told(), leaving.message.text)

    def deadline(self):
        """When to poll again even if nothing happens; None: never."""
        if not self.is_agreed:
            return None
        times = [self.receiver.deadline(), self.sender.deadline()]
        if not self.sender.is_open:
            times.append(self.repeat_at)
        return min((time for time in times if time is not None), default=None)
