"""What moves the bytes: `--io`, and what becomes of a relay where io_uring is forbidden or missing."""

import errno
import functools
import os
import pathlib
import resource
import subprocess
import sys

import pytest

import metrics
import no_io_uring
from client import pair
from relay import GENEROUS, binary, free_port

HERE = pathlib.Path(__file__).parent
AUTO = {"CORALMUX_IO": ""}
LOW_MEMLOCK = {"rlimits": [(resource.RLIMIT_MEMLOCK, 65536)]}


def forbidden(answer):
    return functools.partial(no_io_uring.forbid, answer)


async def exchange(agent, phone):
    """A small message, one that is received straight into its own memory, and many at once."""
    await phone.send("chat.send", {"text": "ahoy"})
    assert await agent.expect("chat.send") == {"text": "ahoy"}
    await agent.send("chat.stream", {"text": "x" * 4_000_000})
    assert len((await phone.expect("chat.stream"))["text"]) == 4_000_000
    for number in range(300):
        await agent.send("chat.stream", {"text": str(number)})
    for number in range(300):
        assert await phone.expect("chat.stream") == {"text": str(number)}


@pytest.mark.parametrize(
    "without, reason",
    [
        ({"prepare": forbidden(errno.EPERM)}, "io_uring is forbidden here"),
        ({"prepare": forbidden(errno.ENOSYS)}, "does not exist (ENOSYS)"),
        (LOW_MEMLOCK, "RLIMIT_MEMLOCK is 65536"),
    ],
    ids=["EPERM", "ENOSYS", "memlock"],
)
async def test_where_io_uring_cannot_be_had_the_relay_runs_on_epoll_and_says_why(start_relay, without, reason):
    port = free_port()
    relay = start_relay(*GENEROUS, "--metrics-addr", f"127.0.0.1:{port}", env=AUTO, **without)
    health = relay.health()
    assert (health["status"], health["io"]) == ("ok", "epoll") and reason in health["io_reason"], health
    assert any(line["reason"] == health["io_reason"] for line in relay.lines("running on epoll"))
    assert (await metrics.scrape(port)).get("coralmux_io_driver", driver="epoll") == 1
    async with pair(relay) as ends:
        await exchange(*ends)


@pytest.mark.parametrize(
    "without, reason", [({"prepare": forbidden(errno.EPERM)}, "io_uring is forbidden"), (LOW_MEMLOCK, "MEMLOCK")]
)
def test_who_wants_io_uring_and_cannot_have_it_is_told(start_relay, without, reason):
    relay = start_relay("--io", "uring", spawn_only=True, **without)
    assert relay.wait() == 3
    assert reason in relay.log() and "What to do:" in relay.log() and "--io epoll" in relay.log()


async def test_who_wants_epoll_has_it_and_no_ring_is_built(start_relay):
    relay = start_relay("--io", "epoll")
    health = relay.health()
    assert health["io"] == "epoll" and "io_reason" not in health
    descriptors = pathlib.Path(f"/proc/{relay.process.pid}/fd")
    kinds = [os.readlink(fd) for fd in descriptors.iterdir()]
    assert sum("[eventpoll]" in kind for kind in kinds) >= 2 and not any("io_uring" in kind for kind in kinds), kinds
    async with pair(relay) as ends:
        await exchange(*ends)


def test_where_io_uring_works_it_is_used(start_relay):
    health = start_relay(env=AUTO).health()
    assert health["io"] == "io_uring" and "io_reason" not in health


def test_a_wrong_value_is_refused(start_relay):
    relay = start_relay("--io", "kqueue", spawn_only=True)
    assert relay.wait() == 2 and "auto, uring or epoll" in relay.log()


def test_the_suite_passes_in_gvisor():
    """A kernel of another make, which has no io_uring: a part of these tests, with relays and clients inside it."""
    tests = ["test_messages.py", "test_transport.py"]
    command = [
        "runsc", "--network=none", "--ignore-cgroups", "--platform=ptrace", "do", f"--cwd={HERE.parent.parent}", "--",
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not quiet", "-c", str(HERE / "pytest.ini"),
        *(str(HERE / test) for test in tests),
    ]  # fmt: skip
    environment = os.environ | {"CORALMUX_RELAY": binary(), "CORALMUX_IO": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-5000:] + done.stderr[-2000:]
