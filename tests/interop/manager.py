"""The service manager's side, played by the tests; and what its watchdog is for: a shard that hangs."""

import contextlib
import ctypes
import os
import pathlib
import socket
import time

DEADLINE = 30
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(DEADLINE)
        self.path = str(path)

    def receive(self):
        """The next message, as its assignments."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, name, value=None):
        """Reads up to a message with that assignment; all that came, in order."""
        deadline, come = time.monotonic() + DEADLINE, []
        while time.monotonic() < deadline:
            come.append(self.receive())
            if name in come[-1] and value in (None, come[-1][name]):
                return come
        raise AssertionError(f"no {name} within {DEADLINE} s: {come}")


def ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


@contextlib.contextmanager
def stopped_shard(relay, number):
    """A shard that stands still: a debugger stops this one thread, wherever it is."""
    threads = {p.parent.name: p.read_text() for p in pathlib.Path(f"/proc/{relay.process.pid}/task").glob("*/comm")}
    # The executor's helper has the same name, and is younger.
    shard = min(int(thread) for thread, name in threads.items() if name.startswith(f"shard-{number}"))
    ptrace(PTRACE_ATTACH, shard)
    os.waitpid(shard, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, shard)
