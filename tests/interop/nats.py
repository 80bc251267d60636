"""A real nats-server with JetStream, which is killed, stopped, and loses its files."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

from relay import free_port

# The one of the Python package, and Debian's, which is years older: relays have to do with both.
PACKAGED = pathlib.Path(sys.executable).parent / "nats-server"
DEBIAN = next(filter(pathlib.Path.exists, map(pathlib.Path, ["/usr/sbin/nats-server", "/usr/bin/nats-server"])), None)
PROGRAMS = {"packaged": PACKAGED} | ({"debian": DEBIAN} if DEBIAN else {})


class Nats:
    scheme = "nats"

    def __init__(self, directory, program=PACKAGED, jetstream=True, flags=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.files = self.directory / "jetstream"
        self.port = free_port()
        self.command = [str(program), "-a", "127.0.0.1", "-p", str(self.port), *map(str, flags)]
        self.command += ["-js", "-sd", str(self.files)] if jetstream else []
        self.process = None

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self):
        with open(self.directory / "nats.log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as there:
                    if there.recv(4).startswith(b"INFO"):
                        return self
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def log(self):
        return (self.directory / "nats.log").read_text(errors="replace")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def pause(self):
        os.kill(self.process.pid, signal.SIGSTOP)
        while pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def lose_files(self):
        self.kill()
        shutil.rmtree(self.files)

    def back_up(self):
        """A copy of its files; it does not run meanwhile."""
        self.kill()
        shutil.copytree(self.files, self.directory / "backup")
        self.start()

    def restore(self):
        self.lose_files()
        shutil.copytree(self.directory / "backup", self.files)
        self.start()


def three_servers(directory):
    """A NATS cluster, whose servers keep the same."""
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    servers = []
    for number, route in enumerate(routes):
        flags = ("--server_name", f"s{number}", "--cluster_name", "c", "--cluster", route, "--routes", ",".join(routes))
        servers.append(Nats(directory / f"s{number}", flags=flags))
    for server in servers:
        server.start()
    return servers
