"""The service manager's side, played by the tests: socket activation, sd_notify, the watchdog; and the unit files."""

import asyncio
import collections
import fcntl
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

import raw
from manager import stopped_shard
from relay import ROOT, Relay

UNITS = ROOT / "deploy" / "systemd"
DEADLINE = 30


class Activated(Relay):
    """A relay on sockets that were passed as systemd does: descriptors from 3 on, LISTEN_FDS and LISTEN_PID."""

    def __init__(self, directory, sockets, *flags, **options):
        super().__init__(directory, *flags, port=sockets[0].getsockname()[1], **options)
        self.sockets = sockets
        moves = "".join(f"exec {3 + number}<&{s.fileno()};" for number, s in enumerate(sockets))
        # The shell's process becomes the relay's: its id is the one that LISTEN_PID has to name.
        start = f'{moves} export LISTEN_PID=$$ LISTEN_FDS={len(sockets)}; exec "$@"'
        self.command = ["bash", "-c", start, "bash", *self.command]

    def popen(self, **options):
        return super().popen(pass_fds=[s.fileno() for s in self.sockets], **options)


def listening(count=1, reuse_port=False):
    """Listening sockets on one port, with numbers above those they are passed as."""
    sockets = []
    for _ in range(count):
        s = socket.socket()
        if reuse_port:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", sockets[0].getsockname()[1] if sockets else 0))
        s.listen(4096)
        high = fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 100)
        s.close()
        sockets.append(socket.socket(fileno=high))
    return sockets


@pytest.fixture
def activated(tmp_path):
    """Starts relays on passed sockets; what still runs at the end is ended."""
    relays = []

    def start(sockets, *flags, **options):
        relay = Activated(tmp_path, sockets, *flags, **options)
        relays.append(relay)
        return relay.start()

    yield start
    for relay in relays:
        if relay.running():
            relay.kill()
        for s in relay.sockets:
            s.close()


async def storm(relay, token, role, outcomes, stop):
    """Connects and authenticates again and again, and counts what comes of it."""
    while not stop.is_set():
        try:
            client = await raw.RawSocket.authed(relay, token, role)
        except raw.Closed as closed:
            outcomes[f"closed {closed.code}"] += 1
        except Exception as error:  # refused, reset, no answer: all that must not be
            outcomes[repr(error)] += 1
        else:
            outcomes["admitted"] += 1
            async with client:
                pass


@pytest.mark.parametrize("count, reuse_port", [(1, False), (3, True)])
async def test_restarts_under_a_connect_storm_refuse_nobody(activated, count, reuse_port):
    """`systemctl restart` with socket activation: no connection attempt is refused while the new process starts."""
    relay = activated(
        listening(count, reuse_port), "--register-rate", "0", "--max-unauthenticated-per-address", "0"
    )
    tokens = [await relay.token() for _ in range(8)]
    outcomes, stop = collections.Counter(), asyncio.Event()
    clients = [asyncio.create_task(storm(relay, t, role, outcomes, stop)) for t in tokens for role in ("agent", "phone")]
    for _ in range(4):
        before = outcomes["admitted"]
        while outcomes["admitted"] < before + 50:
            await asyncio.sleep(0.01)
        relay.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(relay.wait) == 0, relay.log()
        # Nobody accepts now; who connects waits.
        waiting = socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE)
        await asyncio.to_thread(relay.start)
        waiting.sendall(b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
        assert (await asyncio.to_thread(waiting.recv, 12)) == b"HTTP/1.1 200"
        waiting.close()
    stop.set()
    await asyncio.gather(*clients)
    assert set(outcomes) <= {"admitted", "closed 1012", "closed 4001"}, outcomes
    relay.stop()


async def test_a_passed_socket_that_no_address_names_is_refused_with_its_name(tmp_path):
    passed = listening()
    relay = Activated(tmp_path, passed)
    relay.command[relay.command.index("-addr") + 1] = "127.0.0.1:1"
    relay.spawn()
    assert relay.wait() == 2
    assert f"127.0.0.1:{passed[0].getsockname()[1]}" in relay.log()
    passed[0].close()


async def test_a_passed_descriptor_that_is_no_listening_socket_is_refused(tmp_path):
    passed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    passed.bind(("127.0.0.1", 0))
    relay = Activated(tmp_path, [passed]).spawn()
    assert relay.wait() == 2
    assert "not a listening TCP socket" in relay.log()
    passed.close()


async def test_ready_status_and_stopping_are_told(manager, start_relay):
    relay = start_relay(env={"NOTIFY_SOCKET": manager.path}, spawn_only=True)
    first = manager.receive()
    assert first["READY"] == "1" and "connections" in first["STATUS"], first
    # READY is not said before it is so.
    assert (await relay.http("GET", "/readyz")).status == 200
    relay.process.send_signal(signal.SIGTERM)
    last = manager.until("STOPPING", "1")[-1]
    assert last["STATUS"].startswith("draining"), last
    assert relay.wait() == 0


async def test_the_watchdog_is_fed_while_all_shards_beat_and_not_while_one_hangs(manager, start_relay):
    relay = start_relay(env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1500000"}, spawn_only=True)
    manager.until("READY", "1")
    for _ in range(3):
        started = time.monotonic()
        manager.until("WATCHDOG", "1")
        assert time.monotonic() - started < 1.5, "in time for the manager"
    with stopped_shard(relay, 1):
        # Until the beat is old enough it is fed; then no more, and the status says why.
        while (message := manager.receive()).get("WATCHDOG") == "1":
            pass
        assert message["STATUS"] == "shard 1 is stuck"
        for _ in range(4):
            assert "WATCHDOG" not in manager.receive()
    manager.until("WATCHDOG", "1")
    relay.stop()
    log = relay.log()
    assert log.count("the watchdog is not fed") == 1 and "the shard runs again" in log, "said once, not at each look"


def test_without_a_manager_nothing_is_told_and_nothing_is_amiss(start_relay):
    relay = start_relay(env={"WATCHDOG_USEC": "1000"})
    assert "cannot notify the service manager" not in relay.log()


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_systemd_finds_no_fault_with_the_units(tmp_path):
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        text = re.sub("/usr/local/bin/coralmux-(relay|agent)", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    code, text = analyze("verify", "--man=no", *(str(path) for path in sorted(tmp_path.iterdir())))
    ours = [line for line in text.splitlines() if "coralmux" in line]
    assert code == 0 and not ours, text


def test_the_service_is_locked_down():
    code, text = analyze("security", "--offline=true", "--threshold=20", str(UNITS / "coralmux-relay.service"))
    assert code == 0, text
    level = float(re.search(r"Overall exposure level for coralmux-relay.service: ([\d.]+)", text).group(1))
    assert level <= 2.0, text


def allowed_calls():
    """The calls that the unit's SystemCallFilter lets through, its groups resolved by systemd."""

    def resolve(names):
        calls = set()
        for name in names:
            if name.startswith("@"):
                lines = analyze("syscall-filter", name)[1].splitlines()[1:]
                calls |= resolve(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
            else:
                calls.add(name)
        return calls

    calls = set()
    for line in (UNITS / "coralmux-relay.service").read_text().splitlines():
        if match := re.fullmatch(r"SystemCallFilter=(~?)(.+)", line):
            named = resolve(match[2].split())
            calls = calls - named if match[1] else calls | named
    return calls


@pytest.mark.parametrize(
    "io, needed", [("uring", {"io_uring_setup", "io_uring_enter", "io_uring_register"}), ("epoll", {"epoll_create1", "sendto"})]
)
async def test_the_filter_lets_through_every_call_that_the_relay_makes(tmp_path, io, needed):
    """The relay's whole life under strace: start, pairing, a message, drain."""
    trace = tmp_path / "trace"
    relay = Relay(tmp_path, "--io", io)
    relay.command = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace), *relay.command]
    relay.start()
    token = await relay.token()
    async with (
        await raw.RawSocket.authed(relay, token, "agent") as agent,
        await raw.RawSocket.authed(relay, token, "phone") as phone,
    ):
        await phone.send({"type": "chat.send", "id": "1"})
        while (await agent.receive())["type"] != "chat.send":
            pass
    traced = next(pathlib.Path(f"/proc/{relay.process.pid}/task").glob("*/children")).read_text().split()[0]
    os.kill(int(traced), signal.SIGTERM)
    assert relay.wait() == 0, relay.log()
    made = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)[( ]", trace.read_text(), re.M))
    assert needed | {"pwrite64"} <= made, made
    # systemd applies the filter behind execve; and SQLite calls fchown as root only, and does not mind if it fails.
    assert made - allowed_calls() - {"execve", "fchown"} == set()


async def test_the_admin_key_is_taken_from_the_managers_credentials(start_relay, tmp_path):
    (tmp_path / "admin-key").write_text("of the manager\n")
    relay = start_relay(admin_key=None, env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    relay.admin_key = "of the manager"
    assert (await relay.http("POST", "/api/v1/pair", admin=True)).status == 201
    assert not relay.db.with_name("relay.db.admin-key").exists()
