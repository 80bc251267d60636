"""The receiver of a pair that resumes: it takes each message once and in order, and acknowledges what it has taken.

Time is passed in, as seconds of any steady clock. The numbers in the comments are those of the rules in PROTOCOL.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .records import NOTHING, Ack, Position

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
    missed: int = 0
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
        return Position(self.current, self.boots[self.current] - 1) if self.current else NOTHING

    def is_of_another_process(self, record: Record) -> bool:
        """Whether the peer's process has been started since its last record."""
        return self.current is not None and record.e not in self.boots

    @property
    def stored(self) -> list[list[Any]]:
        """What outlasts the process: boots and their next numbers, the newest last."""
        return [[boot, number] for boot, number in self.boots.items()]

    def restore(self, stored: list[Any]) -> None:
        """Goes on where a process left off. ValueError, TypeError: it is damaged."""
        self.boots = {str(boot): int(number) for boot, number in stored[-BOOTS_MAX:]}
        self.current = next(reversed(self.boots), None)

    @property
    def is_missing(self) -> bool:
        return self.current is not None and self.boots[self.current] < self.gap

    def handle(self, now: float, record: Record, size: int, item: Any) -> tuple[list[Any], int]:
        """The items of what is taken with this record, and how many messages are missed."""
        self._turn_to(record)
        missed = max(0, record.b - self._next)  # 2
        self._next += missed
        self.missed += missed
        taken: list[Any] = []
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
            del self.boots[next(iter(self.boots))]

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

    def _hold(self, record: Record, size: int, item: Any) -> None:
        old = self.ahead.get(record.n)
        count = len(self.ahead) + (old is None)
        total = self.ahead_bytes + size - (old[1] if old else 0)
        if count <= AHEAD_MAX and total <= AHEAD_BYTES_MAX:
            self.ahead[record.n] = record, size, item
            self.ahead_bytes = total

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
