"""Starts the real relay binary on a free port, and stops it as an operator would: by SIGTERM, expecting exit code 0."""

import asyncio
import datetime
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import time

import http1

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Long and mixed enough that the relay does not warn of it.
ADMIN_KEY = "7c1e9f0a4b8d42d3a6e5f1b2c3d4e5f6"
START_TIMEOUT = 20
STOP_TIMEOUT = 20
# High enough that only tests which set a limit of their own meet one.
GENEROUS = ("--register-rate", "0", "--phone-rate", "0", "--agent-rate", "0", "--stream-rate", "0")


def binary():
    """The binary under test: CORALMUX_RELAY, or what cargo built last into target/."""
    named = os.environ.get("CORALMUX_RELAY")
    if named:
        return str(pathlib.Path(named).resolve())
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "coralmux-relay" for profile in ("debug", "release")]
    built = [path for path in built if path.exists()]
    if not built:
        raise FileNotFoundError("no relay binary: build it with cargo, or name it in CORALMUX_RELAY")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def api_time(unix_second):
    """A point in time as the HTTP API takes and shows it: RFC 3339 in UTC."""
    return datetime.datetime.fromtimestamp(unix_second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Below those that the kernel gives to clients and to whoever binds port 0.
PORTS = range(15000, 32000)
_reserved = []


def free_port():
    """A free TCP port of 127.0.0.1, which no other test gets while this process lives.

    The tests of several processes run side by side. Who takes a port binds an abstract socket of its name, as
    `freePort` in node/relay.mjs does.
    """
    while True:
        port, mark, probe = random.choice(PORTS), socket.socket(socket.AF_UNIX), socket.socket()
        try:
            mark.bind(f"\0coralmux-test-port-{port}")
            probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
        else:
            _reserved.append(mark)
            return port
        finally:
            probe.close()


class Relay:
    """One relay process."""

    def __init__(self, directory, *flags, admin_key=ADMIN_KEY, env=None, port=None, db=None, rlimits=(), prepare=None):
        self.directory = pathlib.Path(directory)
        self.port = port or free_port()
        self.db = pathlib.Path(db) if db else self.directory / "relay.db"
        self.admin_key = admin_key
        key_flags = [] if admin_key is None else ["-admin-key", admin_key]
        self.command = [binary(), "-addr", f"127.0.0.1:{self.port}", *key_flags, "-db", str(self.db), "--shards", "2"]
        self.command += [str(flag) for flag in flags]
        if "--metrics-addr" not in self.command:
            # Many relays at a time would take the default port from each other.
            self.command += ["--metrics-addr", "off"]
        self.environment = {k: v for k, v in os.environ.items() if k not in ("RELAY_ADMIN_KEY", "RUST_LOG")} | (
            env or {}
        )
        self.log_path = self.directory / "relay.log"
        self.rlimits = rlimits
        # Called in the process before it becomes the relay.
        self.prepare = prepare
        self.process = None
        self.log_start = 0

    def spawn(self):
        """Starts the process without waiting until it serves."""
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = self.popen(stdout=log, stderr=subprocess.STDOUT)
        return self

    def popen(self, **options):
        """Its process, with what is the same wherever the output goes."""
        before = self.before_it_runs if self.rlimits or self.prepare else None
        return subprocess.Popen(self.command, env=self.environment, cwd=self.directory, preexec_fn=before, **options)

    def before_it_runs(self):
        for name, value in self.rlimits:
            resource.setrlimit(name, (value, value))
        if self.prepare:
            self.prepare()

    def start(self):
        """Starts the process and waits until /health answers."""
        self.spawn()
        return self.await_health()

    def await_health(self):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                if http1.get_blocking(self.port, "/health").startswith(b"HTTP/1.1 200"):
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise AssertionError(f"the relay ended with {self.process.returncode} at start:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the relay did not answer /health within {START_TIMEOUT} s:\n{self.log()}")
            time.sleep(0.02)

    def log(self):
        """What this process has written, both streams."""
        return self.log_path.read_bytes()[self.log_start :].decode(errors="replace")

    def lines(self, *parts):
        """The log's lines of JSON so far, those that have all these parts."""
        lines = self.log().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and all(part in line for part in parts)]

    def health(self):
        """What /health says."""
        return json.loads(http1.get_blocking(self.port, "/health").partition(b"\r\n\r\n")[2])

    def wait(self, timeout=STOP_TIMEOUT):
        """The exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the relay did not end within {timeout} s:\n{self.log()}") from None

    def stop(self):
        """SIGTERM: refuse new, tell the connected, flush usage, exit 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.log()}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/ws"

    async def http(self, method, path, body=None, *, admin=False, headers=()):
        """One HTTP request on a connection of its own."""
        headers = list(headers) + ([("X-Admin-Key", self.admin_key)] if admin else [])
        return await http1.request(self.port, method, path, headers=headers, body=body)

    async def pair(self, **body):
        """Creates a token through the admin API; the whole answer."""
        answer = await self.http("POST", "/api/v1/pair", body or None, admin=True)
        assert answer.status == 201, (answer.status, answer.body)
        return answer.json()

    async def token(self, **body):
        return (await self.pair(**body))["token"]

    async def alone(self):
        """Waits until it has let go of the connections that found it ready and asked it for tokens: they count, too."""
        local, connected = f":{self.port:04X}", ("01", "08")  # established, and ended by the client alone
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            sockets = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
            if not any(fields[1].endswith(local) and fields[3] in connected for fields in sockets):
                return
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.01)
