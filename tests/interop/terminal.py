"""Programs at a terminal, as a person starts them."""

import os
import pty
import subprocess
import threading

from agents import Process


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
