"""Programs at a terminal, as a person starts them."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time

import pyte

from agents import Process

TIMEOUT = 30


class Screen:
    """A pseudo-terminal; what is written to it is kept in a file."""

    def __init__(self, path):
        self.path = path
        self.master, self.slave = pty.openpty()
        self.thread = threading.Thread(target=self.keep, daemon=True)

    def __enter__(self):
        self.path.touch()
        self.thread.start()
        return self.slave

    def __exit__(self, *_):
        # The program has it open, too; once both have let go of it, the reading ends.
        os.close(self.slave)

    def keep(self):
        with open(self.path, "wb", buffering=0) as file:
            while True:
                try:
                    read = os.read(self.master, 4096)
                except OSError:
                    break
                if not read:
                    break
                file.write(read.replace(b"\r", b""))
        os.close(self.master)


class AtTerminal(Process):
    """A program with a terminal for both streams."""

    def popen(self, command, environment):
        with Screen(self.log_path) as screen:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, env=environment, start_new_session=True
            )


class Typed:
    """A program in the foreground of a terminal of its own: a person types, and reads what a terminal shows of it."""

    COLUMNS, ROWS = 220, 200  # nothing wraps, and nothing scrolls away

    def __init__(self, command, env):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.ROWS, self.COLUMNS, 0, 0))
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = subprocess.Popen(command, **streams, env=env, start_new_session=True, preexec_fn=self._take)
        os.close(slave)
        self.raw = b""
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()

    @staticmethod
    def _take():
        """The session's terminal is this one, and the program its foreground."""
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _keep(self):
        while True:
            try:
                read = os.read(self.master, 4096)
            except OSError:
                return
            if not read:
                return
            self.raw += read

    def types(self, text):
        os.write(self.master, text.encode())

    def screen(self):
        """What a terminal shows of all that was written."""
        screen = pyte.Screen(self.COLUMNS, self.ROWS)
        pyte.ByteStream(screen).feed(self.raw)
        return screen

    def lines(self):
        """What is shown, without blank ends and lines."""
        return [line.rstrip() for line in self.screen().display if line.strip()]

    def shows(self, text, count=1, timeout=TIMEOUT):
        """The line that has this; so many have to have come."""
        deadline = time.monotonic() + timeout
        while len(found := [line for line in self.lines() if text in line]) < count:
            assert self.process.poll() is None and time.monotonic() < deadline, "\n".join([text, "---", *self.lines()])
            time.sleep(0.05)
        return found[count - 1]

    def kill(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
