"""When a client tries again after its connection has ended."""

from __future__ import annotations

import random
from collections.abc import Callable

SOON = 0.5  # seconds, at most, until the first try after a connection that was of use
SHORT = 5  # seconds: a connection that broke within them
SHORT_MAX = 2  # of those in a row that count as of use
SHORT_WAIT_MAX = 8  # seconds, at most, after more of them: the network may be good again at any time
BUSY = (1012, 1013)  # close codes of a relay that restarts or is full


class Retry:
    """Its waits grow only with tries that fail. `delays`: seconds before the second try, and at most."""

    def __init__(self, delays: tuple[float, float], uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.first, self.longest = delays
        self.uniform = uniform
        self.delay, self.short = self.first, 0

    def wait(self, lasted: float | None, code: int | None) -> float:
        """Seconds until the next try. `lasted`: how long the connection was authenticated, None if it never was;
        `code`: its close code, if it had one."""
        if lasted is not None:
            self.short = self.short + 1 if lasted < SHORT else 0
            if self.short <= SHORT_MAX:
                self.delay = self.first
                if code not in BUSY:
                    return self.uniform(0, min(SOON, self.first))
            elif code not in BUSY:
                self.delay = min(self.delay, max(SHORT_WAIT_MAX, self.first))
        delay, self.delay = self.delay, min(self.delay * 2, self.longest)
        return delay * self.uniform(0.8, 1.2)
