"""What the relay's own programs send out, on a machine whose environment names a proxy."""

import os
import socket
import subprocess
import threading

import pytest

from certificates import certificate, tls_flags
from proxy import Proxy
from relay import ADMIN_KEY, binary, free_port


def run(directory, *command, **environment):
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CORALMUX_") and k.lower() not in ("no_proxy",)}
    return subprocess.run(
        [binary(), *map(str, command)],
        env=ours | {"RELAY_ADMIN_KEY": ADMIN_KEY} | environment,
        capture_output=True, text=True, timeout=60, cwd=directory,
    )  # fmt: skip


def admin(directory, url, *more, **environment):
    return run(directory, "admin", "--relay", url, *more, "tokens", "list", **environment)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"])
def test_the_loopback_is_asked_without_the_environments_proxy(relay, tmp_path, host):
    proxy = Proxy(relay.port)
    done = admin(tmp_path, f"http://{host}:{relay.port}", **proxy.environment())
    assert done.returncode == 0, done.stderr
    assert proxy.heads == [] and "without TLS" not in done.stderr


def test_healthcheck_and_doctor_ask_this_machine_without_a_proxy(relay, tmp_path):
    proxy = Proxy(relay.port)
    flags = ("--addr", f"127.0.0.1:{relay.port}", "--db", relay.db, "--metrics-addr", "off")
    assert run(tmp_path, "healthcheck", *flags, **proxy.environment()).returncode == 0
    done = run(tmp_path, "doctor", *flags, **proxy.environment())
    assert "in use by a relay that answers" in done.stdout, done.stdout
    assert proxy.heads == []


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_relay_elsewhere_is_asked_through_the_proxy_unless_no_proxy_names_it(start_relay, tmp_path, name):
    port = free_port()
    cert, key = certificate(tmp_path, "relay", "relay.invalid")
    start_relay("--addr", f"tls://127.0.0.1:{port}", *tls_flags((cert, key)))
    proxy = Proxy(port)
    url, ca = "https://relay.invalid", ("--ca", cert)
    done = admin(tmp_path, url, *ca, **proxy.environment(name))
    assert done.returncode == 0, done.stderr
    [head] = proxy.heads
    assert head.startswith("CONNECT relay.invalid:443 ") and "dXNlcjp3b3Jk" in head and ADMIN_KEY not in head
    for spared in ("relay.invalid", ".invalid", "other, relay.invalid", "*"):
        done = admin(tmp_path, url, *ca, NO_PROXY=spared, **proxy.environment(name))
        assert done.returncode == 1, "there is no such host"
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("value", ["garbage://me:word@x", "http://[::1", "http://me:word@127.0.0.1:99999"])
def test_a_proxy_that_cannot_be_read_is_an_error_and_not_gone_around(relay, tmp_path, value):
    done = admin(tmp_path, "https://relay.invalid", HTTPS_PROXY=value)
    assert done.returncode == 2, done.stderr
    assert "HTTPS_PROXY is " in done.stderr and "http://HOST:PORT" in done.stderr and "word" not in done.stderr
    done = admin(tmp_path, f"http://127.0.0.1:{relay.port}", HTTP_PROXY=value)
    assert done.returncode == 0, "this machine is asked without one"


def test_a_proxy_that_does_not_answer_is_named(tmp_path):
    port = free_port()
    done = admin(tmp_path, "https://relay.invalid", ALL_PROXY=f"http://me:word@127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"the proxy http://127.0.0.1:{port} of ALL_PROXY" in done.stderr and "word" not in done.stderr


def test_a_proxy_for_plain_http_is_not_taken_for_https(tmp_path):
    proxy = Proxy(9)
    assert admin(tmp_path, "https://relay.invalid", **proxy.environment("HTTP_PROXY", "http_proxy")).returncode == 1
    assert proxy.heads == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:x@relay.invalid", "http://localhost@relay.invalid", "http://", "relay"])
def test_a_url_that_only_looks_like_this_machine_gets_no_key(tmp_path, url):
    proxy = Proxy(9)
    done = admin(tmp_path, url, **proxy.environment())
    assert done.returncode == 2 and url in done.stderr and proxy.heads == []


def test_the_key_does_not_follow_a_redirect(tmp_path):
    """As port 80 of a relay sends one, and anybody who answers in its place."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"

        def answer():
            client, _ = listener.accept()
            client.recv(65536)
            head = f"HTTP/1.1 308 there\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
            client.sendall(head.encode())

        threading.Thread(target=answer, daemon=True).start()
        done = admin(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert done.returncode == 1 and place in done.stderr and "--relay" in done.stderr
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_plain_http_to_another_machine_is_warned_of(tmp_path):
    done = admin(tmp_path, "http://relay.invalid", NO_PROXY="*")
    assert done.returncode == 1 and "relay.invalid is contacted without TLS" in done.stderr
