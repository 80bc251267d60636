"""The receiver of a pair that resumes: it takes each message once and in order, and acknowledges what it has taken.

Time is passed in, as seconds of any steady clock. The numbers in the comments are those of the rules in PROTOCOL.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .records import LOST_MAX, NOTHING, Ack, Position

if TYPE_CHECKING:
    from .records import Record

KIB, MIB = 1 << 10, 1 << 20
BOOTS_MAX = 4
AHEAD_MAX, AHEAD_BYTES_MAX = 256, MIB
ASK_INTERVAL = 2.0
ACK_MESSAGES, ACK_BYTES, ACK_AFTER = 64, 128 * KIB, 1.0
ACK_INTERVAL_COUNTED = 10.0  # where the relay counts an ack as a message

NEVER = float("-inf")


@dataclass
class Receiver:
    """Takes one direction's records in order.

    Invariant: the numbers of `ahead` are above `boots[current]`, the number that is expected next.
    """

    counted: bool = False  # whether the relay counts an ack as a message
    is_full: bool = False  # whether what has been taken waits to be looked at: then nothing is acknowledged by itself
    boots: dict[str | None, int] = field(default_factory=dict)  # boot: its next number; the newest last
    lost: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # boot: numbers that never came, as `x` has them
    missed: int = 0
    is_draining: bool = False  # what the relay has kept is coming, and the peer cannot be asked
    is_held_over: bool = False  # a page of it has ended with something held
    ahead: dict[int, tuple[Record, int, Any]] = field(default_factory=dict)  # number: (record, size, item)
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
    def position(self) -> Position:
        if not self.current:
            return NOTHING
        return Position(self.current, self.boots[self.current] - 1, tuple(self.lost.get(self.current, ())))

    def is_of_another_process(self, record: Record) -> bool:
        """Whether the peer's process has been started since its last record."""
        return self.current is not None and record.e not in self.boots

    @property
    def stored(self) -> list[list[Any]]:
        """What outlasts the process: boots and their next numbers, the newest last."""
        return [[boot, number] for boot, number in self.boots.items()]

    @property
    def stored_lost(self) -> list[list[Any]]:
        """The same of the numbers that never came: boot, first, last."""
        return [[boot, first, last] for boot, lost in self.lost.items() for first, last in lost]

    def restore(self, stored: list[Any], lost: list[Any] = ()) -> None:  # type: ignore[assignment]
        """Goes on where a process left off. ValueError, TypeError: it is damaged."""
        self.boots = {str(boot): int(number) for boot, number in stored[-BOOTS_MAX:]}
        self.current = next(reversed(self.boots), None)
        for boot, first, last in lost:
            self.lost.setdefault(str(boot), []).append((int(first), int(last)))

    @property
    def is_missing(self) -> bool:
        return self.current is not None and self.boots[self.current] < self.gap

    def handle(self, now: float, record: Record, size: int, item: Any) -> tuple[list[Any], int]:
        """The items of what is taken with this record, and how many messages are missed."""
        taken: list[Any] = []
        given_up = self._give_up_gaps(now, taken) if self.is_draining and self._is_in_the_way(record, size) else 0
        self._turn_to(record)
        missed = max(0, record.b - self._next)  # 2
        self._next += missed
        self.missed += missed
        self._forget_lost(record.b)
        if record.n < self._next:  # 3
            self._count(now, size)
        elif record.f <= self._next:  # 4
            self._take(record, item, taken)
            self._count(now, size)
        else:  # 5
            self.gap = max(self.gap, record.f)
            self._hold(record, size, item)
        self._look_ahead(now, taken)
        return taken, missed + given_up

    def handle_connected(self, drains: bool) -> None:
        """A new connection. `drains`: the relay first hands out what it has kept, and the peer counts as absent."""
        self.drop_ahead()
        self.is_draining, self.is_held_over = drains, False

    def handle_mail(self, now: float, upto: int, left: int) -> tuple[list[Any], int, int | None]:
        """A page of it has ended. What is taken now, how many messages are missed, and what to confirm to the relay when
        all that was taken is safe. (8)"""
        taken: list[Any] = []
        missed, was_held_over = 0, self.is_held_over
        if self.is_draining and (left == 0 or was_held_over):
            missed = self._give_up_gaps(now, taken)
        self.is_held_over = self.is_draining = left != 0
        self.is_held_over = self.is_held_over and bool(self.ahead)
        is_confirmed = upto > 0 and (was_held_over or not self.is_held_over)
        return taken, missed, upto if is_confirmed else None

    def _is_in_the_way(self, record: Record, size: int) -> bool:
        """Whether what is held leaves this one no room, or is of another boot."""
        if not self.ahead:
            return False
        return record.e != self.current or (record.f > self._next and not self._has_room(record, size))

    def _give_up_gaps(self, now: float, taken: list[Any]) -> int:
        """Takes what is held, in order; what is missing before it never came. How many those are."""
        missed = 0
        while self.ahead:
            n = min(self.ahead)
            record = self.ahead[n][0]
            lost = self.lost.setdefault(record.e, [])
            if lost and lost[-1][1] == self._next - 1:
                lost[-1] = (lost[-1][0], record.f - 1)
            elif len(lost) < LOST_MAX:
                lost.append((self._next, record.f - 1))
            else:
                break
            missed += record.f - self._next
            self._next = record.f
            self._look_ahead(now, taken)
        self.drop_ahead()
        self.missed += missed
        return missed

    def _forget_lost(self, base: int) -> None:
        """What is below the base is no news to the sender."""
        if lost := self.lost.get(str(self.current)):
            lost[:] = [(max(first, base), last) for first, last in lost if last >= base]

    @property
    def _next(self) -> int:
        return self.boots[self.current]

    @_next.setter
    def _next(self, value: int) -> None:
        self.boots[self.current] = value

    def _turn_to(self, record: Record) -> None:
        """1: the newest record's boot is the current one."""
        if record.e == self.current:
            return
        self.drop_ahead()
        self.boots[record.e] = self.boots.pop(record.e, record.b)
        self.current = record.e
        self._forget()

    def _forget(self) -> None:
        while len(self.boots) > BOOTS_MAX:
            boot = next(iter(self.boots))
            del self.boots[boot]
            self.lost.pop(str(boot), None)

    def _take(self, record: Record, item: Any, taken: list[Any]) -> None:
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

    def _has_room(self, record: Record, size: int) -> bool:
        old = self.ahead.get(record.n)
        total = self.ahead_bytes + size - (old[1] if old else 0)
        return len(self.ahead) + (old is None) <= AHEAD_MAX and total <= AHEAD_BYTES_MAX

    def _hold(self, record: Record, size: int, item: Any) -> None:
        if self._has_room(record, size):
            old = self.ahead.get(record.n)
            self.ahead_bytes += size - (old[1] if old else 0)
            self.ahead[record.n] = record, size, item

    def _look_ahead(self, now: float, taken: list[Any]) -> None:
        for n in sorted(self.ahead):
            record, size, item = self.ahead[n]
            if record.f > self._next:
                continue
            del self.ahead[n]
            self.ahead_bytes -= size
            if n >= self._next:
                self._take(record, item, taken)
                self._count(now, size)

    def drop_ahead(self) -> None:
        self.ahead, self.ahead_bytes, self.gap = {}, 0, 0

    def _count(self, now: float, size: int) -> None:
        self.untold += 1
        self.untold_bytes += size
        if self.untold_since is None:
            self.untold_since = now

    def handle_refused(self, until: float) -> None:
        """The relay refused an ack, and takes none until then."""
        self.quiet_until, self.owed = until, True

    def told(self) -> Position:
        """What has been taken is acknowledged: returns the acknowledgement."""
        self.untold, self.untold_bytes, self.untold_since, self.owed = 0, 0, None, False
        return self.position

    def poll(self, now: float) -> Ack | None:
        """The ack that is due now, or None."""
        if self.is_missing and now >= self.asked_at + ASK_INTERVAL:
            self.asked_at = now
            return Ack(self.told(), r=True)
        due = self._due_at()
        if due is not None and now >= due:
            self.acked_at = now
            return Ack(self.told())
        return None

    def _due_at(self) -> float | None:
        if self.is_full:
            return None
        if self.owed or self.untold >= ACK_MESSAGES or self.untold_bytes >= ACK_BYTES:
            due = NEVER
        elif self.untold_since is not None:
            due = self.untold_since + ACK_AFTER
        else:
            return None
        return max(due, self.quiet_until, self.acked_at + ACK_INTERVAL_COUNTED if self.counted else NEVER)

    def deadline(self) -> float | None:
        asking = self.asked_at + ASK_INTERVAL if self.is_missing else None
        return min((time for time in (asking, self._due_at()) if time is not None), default=None)
