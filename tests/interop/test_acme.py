"""Certificates from a real ACME CA (pebble), on loopback."""

import asyncio
import http.server
import json
import re
import signal
import socket
import ssl
import stat
import threading
import time

import pytest
from certificates import certificate
from pebble import Pebble
from proxy import Proxy
from relay import GENEROUS, api_time, free_port
from secure import secure_pair, shown, talk, trusting, wait_for

NAME = "relay.example.com"


class Setup:
    """A CA, and what a relay is started with to use it."""

    def __init__(self, directory, start_relay, **options):
        self.start_relay = start_relay
        self.tls_port, self.http_port, self.closed = (free_port() for _ in range(3))
        ways = {"tls_port": self.tls_port, "http_port": self.http_port} | options.pop("ways", {})
        self.pebble = Pebble(directory, **ways, **options)
        self.directory = directory

    def relay(self, *flags, domains=(NAME,), http=True, directory=None, **options):
        listen = ["--addr", f"tls://127.0.0.1:{self.tls_port}"]
        listen += ["--http-addr", f"127.0.0.1:{self.http_port}" if http else "off"]
        names = [flag for domain in domains for flag in ("-domain", domain)]
        return self.start_relay(*GENEROUS, *listen, *names, *self.pebble.flags, *flags, directory=directory, **options)

    def issued(self, relay, count=1, name=NAME):
        """Waits until the relay has been issued so many certificates."""
        wait_for(relay.log, lambda: len(issues(relay, name)) >= count, timeout=40)


def issues(relay, name=NAME):
    return relay.lines("certificate issued", f'"{name}"')


@pytest.fixture
def setup(tmp_path, start_relay):
    made = []

    def make(**options):
        (directory := tmp_path / f"ca-{len(made)}").mkdir()
        made.append(Setup(directory, start_relay, **options))
        return made[-1]

    yield make
    for one in made:
        one.pebble.stop()


def test_a_first_certificate_by_tls_alpn(setup):
    ca = setup()
    ca.pebble.start()
    relay = ca.relay(http=False)
    ca.issued(relay)
    shown(ca.tls_port, NAME, trusting(ca.pebble.roots()))
    report = relay.health()
    assert (report["status"], report["certificates"]) == ("ok", "ok")
    kept = relay.directory / "relay.db.acme"
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["account.json", f"{NAME}.pem"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in [*files, files[0].parent])


def test_a_ca_elsewhere_is_asked_through_the_environments_proxy_and_one_here_is_not(setup):
    ca = setup()
    ca.pebble.start()
    proxy = Proxy(ca.pebble.port)
    relay = ca.relay(env=proxy.environment())
    ca.issued(relay)
    assert proxy.heads == []
    relay.stop()
    ca.pebble.directory_url = f"https://ca.invalid:{ca.pebble.port}/dir"
    relay = ca.relay(directory=relay.directory, env=proxy.environment("HTTPS_PROXY"))
    ca.issued(relay)
    assert proxy.heads and all(head.startswith(f"CONNECT ca.invalid:{ca.pebble.port} ") for head in proxy.heads)
    assert "dXNlcjp3b3Jk" in proxy.heads[0], "with the user's name and word"


def test_port_80_is_the_way_where_port_443_is_not(setup):
    ca = setup(ways={"tls_port": free_port()})
    ca.pebble.start()
    relay = ca.relay()
    ca.issued(relay)
    shown(ca.tls_port, NAME, trusting(ca.pebble.roots()))
    assert "one way to obtain a certificate failed" in relay.log() and "TLS-ALPN-01" in relay.log()


def test_each_domain_has_a_certificate_of_its_own(setup):
    ca = setup()
    ca.pebble.start()
    other = "second.example.com"
    relay = ca.relay(domains=(NAME, other))
    ca.issued(relay)
    ca.issued(relay, name=other)
    context = trusting(ca.pebble.roots())
    assert shown(ca.tls_port, NAME, context) != shown(ca.tls_port, other, context)


async def test_a_certificate_is_renewed_while_connections_go_on(setup):
    ca = setup(validity=9)
    ca.pebble.start()
    relay = ca.relay()
    await asyncio.to_thread(ca.issued, relay)
    context = trusting(ca.pebble.roots())
    first = await asyncio.to_thread(shown, ca.tls_port, NAME, context)
    async with secure_pair(relay, ca.tls_port, NAME, context) as (agent, phone):
        deadline = time.monotonic() + 30
        while len(issues(relay)) < 2:
            await talk(agent, phone)
            assert time.monotonic() < deadline, relay.log()
            await asyncio.sleep(0.1)
        await talk(agent, phone)
        assert await asyncio.to_thread(shown, ca.tls_port, NAME, context) != first
        await talk(agent, phone)


def test_a_ca_that_is_down_at_the_start_is_asked_again(setup):
    ca = setup()
    relay = ca.relay()
    report = wait_for(relay.log, lambda: (report := relay.health()) and "reached" in report["certificates"] and report)
    assert report["status"] == "degraded" and NAME in report["certificates"], report
    assert "no certificate yet" in report["certificates"]
    with pytest.raises(ssl.SSLError, match="(?i)alert access denied"):
        shown(ca.tls_port, NAME)
    ca.pebble.start()
    ca.issued(relay)
    shown(ca.tls_port, NAME, trusting(ca.pebble.roots()))
    assert relay.health()["status"] == "ok"


def test_a_refused_challenge_says_what_the_ca_said_and_what_to_check(setup):
    closed = [free_port(), free_port()]
    ca = setup(ways={"tls_port": closed[0], "http_port": closed[1]})
    ca.pebble.start()
    relay = ca.relay()
    wait_for(relay.log, lambda: "no certificate could be had" in relay.log())
    told = relay.lines("no certificate could be had")[0]
    error = told["error"]
    for part in (NAME, "TLS-ALPN-01", "Failed to connect", "DNS entry", "port 443"):
        assert part in error, error
    http = next(line for line in relay.log().splitlines() if "HTTP-01" in line)
    assert "port 80" in http, http
    assert told["retry_sec"] >= 600
    assert "TLS-ALPN-01" in relay.health()["certificates"]
    failures = relay.log().count("no certificate could be had")
    relay.process.send_signal(signal.SIGHUP)
    wait_for(relay.log, lambda: relay.log().count("no certificate could be had") > failures)


def test_a_kept_certificate_is_served_without_the_ca(setup):
    ca = setup()
    ca.pebble.start()
    relay = ca.relay()
    ca.issued(relay)
    context = trusting(ca.pebble.roots())
    before = shown(ca.tls_port, NAME, context)
    relay.stop()
    ca.pebble.stop()
    relay = ca.relay(directory=relay.directory)
    assert shown(ca.tls_port, NAME, context) == before
    assert not issues(relay) and relay.health()["status"] == "ok"


def test_an_account_that_the_ca_has_forgotten_is_made_anew(setup):
    ca = setup()
    ca.pebble.start()
    relay = ca.relay()
    ca.issued(relay)
    relay.stop()
    ca.pebble.stop()
    ca.pebble.start()
    for kept in relay.directory.rglob(f"{NAME}.pem"):
        kept.unlink()
    relay = ca.relay(directory=relay.directory)
    ca.issued(relay)
    shown(ca.tls_port, NAME, trusting(ca.pebble.roots()))


KID, KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


def test_an_account_is_bound_to_one_at_the_ca(setup):
    ca = setup(binding=(KID, KEY))
    ca.pebble.start()
    relay = ca.relay("--acme-eab-kid", KID, env={"CORALMUX_ACME_EAB_KEY": KEY})
    ca.issued(relay)
    assert KEY not in relay.log()
    relay.stop()
    relay = ca.relay()
    wait_for(relay.log, lambda: "no certificate could be had" in relay.log())
    assert "externalAccountRequired" in relay.log()


async def read_all(reader):
    return (await asyncio.wait_for(reader.read(), 10)).decode()


async def test_port_80_redirects_and_slow_clients_do_not_hold_it(setup):
    ca = setup()
    relay = await asyncio.to_thread(ca.relay)
    idle = [socket.create_connection(("127.0.0.1", ca.http_port)) for _ in range(100)]
    for connection in idle[::2]:
        connection.sendall(b"GET / HT")
    reader, writer = await asyncio.open_connection("127.0.0.1", ca.http_port)
    writer.write(f"GET /health?x=1 HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    answer = await read_all(reader)
    assert answer.startswith("HTTP/1.1 308 "), answer
    assert f"\r\nLocation: https://{NAME}:{ca.tls_port}/health?x=1\r\n" in answer
    for request, status in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (16 << 10), "431"),
        (b"GET /.well-known/acme-challenge/none HTTP/1.1\r\nHost: a.example\r\n\r\n", "404"),
    ]:
        reader, writer = await asyncio.open_connection("127.0.0.1", ca.http_port)
        writer.write(request)
        assert (await read_all(reader)).startswith(f"HTTP/1.1 {status} ")
    for connection in idle:
        connection.settimeout(10)
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        connection.close()
    assert relay.running()


def test_an_acme_directory_that_is_not_trusted_is_named_with_the_flag_that_mends_it(setup):
    ca = setup()
    ca.pebble.start()
    ca.pebble.ca, _ = certificate(ca.directory, "another")
    relay = ca.relay()
    wait_for(relay.log, lambda: "--acme-ca" in relay.log())
    assert ca.pebble.directory_url in relay.log() and "its issuer is unknown" in relay.log(), relay.log()


@pytest.mark.parametrize("text", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\n?\n"])
def test_what_the_directory_is_checked_against_may_be_mended_while_the_relay_runs(setup, text):
    ca = setup()
    ca.pebble.start()
    right = ca.pebble.ca.read_text()
    ca.pebble.ca = ca.directory / "other.pem"
    if text is not None:
        ca.pebble.ca.write_text(text)
    relay = ca.relay()
    wait_for(relay.log, lambda: relay.health()["status"] == "degraded" and "--acme-ca" in relay.log())
    ca.pebble.ca.write_text(right)
    relay.process.send_signal(signal.SIGHUP)
    ca.issued(relay)
    assert relay.health()["status"] == "ok"


def test_the_directory_of_the_acme_account_is_for_its_owner_alone(setup, tmp_path):
    ca = setup()
    (loose := tmp_path / "loose").mkdir(mode=0o755)
    relay = ca.relay("--acme-dir", loose)
    assert stat.S_IMODE(loose.stat().st_mode) == 0o700
    [line] = relay.lines("for its owner alone")
    assert (line["level"], line["file"], line["before"]) == ("WARN", str(loose), "755")
    relay.stop()
    loose.chmod(0o777)
    relay = ca.relay("--acme-dir", loose, spawn_only=True)
    assert relay.wait() == 2
    assert re.search(r"--acme-dir.*loose.*777", relay.log()), relay.log()


def test_a_kept_certificate_that_cannot_be_read_is_ordered_anew(setup):
    ca = setup()
    ca.pebble.start()
    relay = ca.relay()
    ca.issued(relay)
    relay.stop()
    [kept] = (relay.directory / "relay.db.acme").rglob(f"{NAME}.pem")
    for spoil in (lambda: kept.write_text("no certificate"), lambda: kept.chmod(0o666), lambda: (kept.unlink(), kept.mkdir())):
        spoil()
        relay.start()
        assert relay.lines("a stored certificate cannot be used")
        if kept.is_file():
            ca.issued(relay)
            assert relay.health()["status"] == "ok"
        relay.stop()


class Suggesting:
    """A directory in front of pebble's that has what pebble's lacks: renewal windows (ARI, RFC 9773)."""

    def __init__(self, pebble):
        self.pebble, self.asked = pebble, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/dir":
                    own = json.loads(pebble.get(pebble.port, "/dir"))
                    return self.answer(own | {"renewalInfo": f"https://127.0.0.1:{outer.port}/renewal-info"})
                name = self.path.removeprefix("/renewal-info/")
                outer.asked.append(name)
                # The first certificate's window is over, those of all others are far away.
                day = -1 if name == outer.asked[0] else 1
                start = api_time(time.time() + day * 86400)
                self.answer({"suggestedWindow": {"start": start, "end": start}})

            def answer(self, value):
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Retry-After", "21600")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pebble.https)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        pebble.directory_url = f"https://127.0.0.1:{self.port}/dir"


def test_a_certificate_is_renewed_when_the_ca_suggests(setup):
    # By its age it would be renewed after 400 seconds.
    ca = setup(validity=600)
    ca.pebble.start()
    suggesting = Suggesting(ca.pebble)
    relay = ca.relay()
    ca.issued(relay, 2)
    wait_for(relay.log, lambda: len(suggesting.asked) == 2)
    first, second = suggesting.asked
    assert first != second and len(first.split(".")) == 2
    wait_for(relay.log, lambda: relay.log().count("the CA suggests when to renew") == 2)
    assert len(issues(relay)) == 2
    suggesting.server.shutdown()
