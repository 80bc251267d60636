"""`coralmux-relay healthcheck`, which containers call."""

import subprocess

import pytest

from certificates import certificate, tls_flags
from relay import Relay, binary


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*flags, **options):
        relay = Relay(tmp_path, *flags, **options)
        started.append(relay)
        return relay

    yield start
    for relay in started:
        if relay.running():
            relay.stop()


def healthcheck(*flags, env=None):
    return subprocess.run([binary(), "healthcheck", *flags], capture_output=True, text=True, timeout=30, env=env)


def test_it_asks_the_relay_of_the_same_settings_and_no_proxy(start):
    relay = start().start()
    address = f"127.0.0.1:{relay.port}"
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    for done in (
        healthcheck("--addr", address),
        healthcheck(env={"CORALMUX_ADDR": address, **proxy}),
        healthcheck("--addr", f":{relay.port}"),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_relay_that_speaks_tls_only_is_asked_too(start, tmp_path):
    tls = tls_flags(certificate(tmp_path, "cert", "relay.example.com"))
    relay = start(*tls)
    address = f"tls://127.0.0.1:{relay.port}"
    relay.command[relay.command.index(f"127.0.0.1:{relay.port}")] = address
    relay.spawn()
    for _ in range(200):
        done = healthcheck("--addr", address, *tls)
        if done.returncode == 0 or not relay.running():
            break
    assert done.returncode == 0, done.stderr + relay.log()


def test_it_says_what_is_wrong(start):
    relay = start()
    address = f"127.0.0.1:{relay.port}"
    gone = healthcheck("--addr", address)
    assert gone.returncode == 1 and address in gone.stderr
    assert healthcheck("--addr", "nonsense").returncode == 2
