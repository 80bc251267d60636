"""TLS on the relay's port: third-party clients, records split anywhere, and misbehaving peers."""

import asyncio
import json
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import time

import http1
import pytest

import raw
import sealed
from client import Client, envelope, sized
from relay import ADMIN_KEY, binary
from sealed import Sealed

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
MIB = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture
def tls(start_relay, made):
    """A relay with two shards that speaks TLS on one of its ports."""
    return sealed.start(start_relay, made)


async def in_thread(function, *arguments):
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), 60)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_pair_talks_over_tls_whatever_the_length(tls, version):
    """Several tokens, so that connections move to the other shard."""
    for turn in range(4):
        token = await tls.token()
        secure = {"ssl": tls.context(version)}
        async with await Client.authed(tls, token, "agent", **secure) as agent:
            async with await Client.authed(tls, token, "phone", **secure) as phone:
                await agent.expect("status")
                for size in (200, 1000, 16_000, 16_384, 17_000, 65_000, 5 * MIB if turn == 0 else 300_000):
                    for sender, receiver in ((phone, agent), (agent, phone)):
                        text, _ = sized("file.data", size)
                        await sender.send_text(text)
                        assert await receiver.receive_text() == text


async def test_one_side_may_be_plain(tls):
    token = await tls.token()
    async with await Client.authed(tls.plain, token, "agent") as agent:
        async with await Client.authed(tls, token, "phone", ssl=tls.context()) as phone:
            await agent.expect("status")
            for size in (300, 100_000, 2 * MIB):
                for sender, receiver in ((phone, agent), (agent, phone)):
                    text, _ = sized("file.data", size)
                    await sender.send_text(text)
                    assert await receiver.receive_text() == text


async def test_many_messages_both_ways_at_once_stay_in_order(tls):
    async with await Client.authed(tls, token := await tls.token(), "agent", ssl=tls.context()) as agent:
        async with await Client.authed(tls, token, "phone", ssl=tls.context()) as phone:
            await agent.expect("status")
            texts = [sized("file.data", 150 + number * 37 % 5000)[0] for number in range(1000)]

            async def send(client):
                for text in texts:
                    await client.send_text(text)

            async def receive(client):
                for text in texts:
                    assert await client.receive_text() == text

            await asyncio.gather(send(agent), send(phone), receive(agent), receive(phone))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_handshake_and_records_that_come_byte_by_byte(tls, version):
    token = await tls.token()
    async with await Client.authed(tls.plain, token, "agent") as agent:

        def phone():
            with Sealed(tls.port, tls.context(version)) as phone:
                phone.shake(piece=1)
                phone.auth(tls.port, token, "phone")
                for number in range(3):
                    phone.send_split(phone.seal(raw.text(envelope("chat.send", {"n": number}))), 1)
                    assert '"pong"' in (phone.send(raw.text(envelope("ping"))) or phone.message())

        await in_thread(phone)
        await agent.expect("status")
        for number in range(3):
            assert await agent.expect("chat.send") == {"n": number}


async def test_many_frames_in_a_record_and_a_frame_over_many_records(tls):
    token = await tls.token()
    texts = [json.dumps(envelope("file.data", {"n": number})) for number in range(100)]
    large, _ = sized("file.data", 60_000)

    def phone():
        with Sealed(tls.port, tls.context()) as phone:
            phone.shake()
            phone.auth(tls.port, token, "phone")
            together = b"".join(raw.text(text) for text in texts)
            record = phone.seal(together)
            assert len(together) < len(record) < len(together) + 64, "one record"
            phone.socket.sendall(record)
            frame = raw.text(large)
            phone.socket.sendall(b"".join(phone.seal(frame[at : at + 100]) for at in range(0, len(frame), 100)))
            phone.send(raw.text(envelope("ping")))
            assert '"pong"' in phone.message()

    async with await Client.authed(tls, token, "agent", ssl=tls.context()) as agent:
        await in_thread(phone)
        await agent.expect("status")
        for text in [*texts, large]:
            assert await agent.receive_text() == text


@pytest.mark.parametrize("attack", ["missing", "twice", "changed"])
async def test_records_that_are_missing_or_come_twice_or_are_changed_end_the_connection(tls, attack):
    token = await tls.token()

    def phone():
        with Sealed(tls.port, tls.context()) as phone:
            phone.shake()
            phone.auth(tls.port, token, "phone")
            record = phone.seal(raw.text(envelope("chat.send", {"n": 1})))
            if attack == "missing":
                record = phone.seal(raw.text(envelope("chat.send", {"n": 2})))
            elif attack == "twice":
                record += record
            else:
                record = record[:-1] + bytes([record[-1] ^ 1])
            phone.socket.sendall(record)
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                phone.more()

    async with await Client.authed(tls, token, "agent", ssl=tls.context()) as agent:
        await in_thread(phone)
        assert await agent.expect("status") == {"peer": "online"}
        if attack == "twice":
            assert await agent.expect("chat.send") == {"n": 1}
        assert await agent.expect("status") == {"peer": "offline"}


async def test_what_comes_right_behind_auth_moves_along(tls):
    """In the same record, in further records, and in a half of one: to whichever shard the connection moves."""
    for turn in range(6):
        token = await tls.token()

        def phone():
            with Sealed(tls.port, tls.context()) as phone:
                phone.shake()
                behind = [raw.text(envelope("chat.send", {"n": number})) for number in range(5)]
                auth = raw.text(raw.auth(token, "phone"))
                data = phone.seal(raw.upgrade(tls.port) + auth + behind[0]) if turn % 2 else b""
                if not data:
                    data = phone.seal(raw.upgrade(tls.port)) + phone.seal(auth + behind[0])
                data += phone.seal(behind[1]) + phone.seal(behind[2] + behind[3])
                half = phone.seal(behind[4])
                phone.socket.sendall(data + half[:20])
                phone.until(b"\r\n\r\n")
                assert '"auth.ok"' in phone.message()
                phone.socket.sendall(half[20:])
                phone.send(raw.text(envelope("ping")))
                assert '"pong"' in phone.message()

        async with await Client.authed(tls, token, "agent", ssl=tls.context()) as agent:
            await in_thread(phone)
            await agent.expect("status")
            for number in range(5):
                assert await agent.expect("chat.send") == {"n": number}


async def test_a_peer_that_does_not_read_slows_the_other_and_loses_nothing(tls):
    token = await tls.token()
    texts = [sized("file.data", 500_000)[0]] * 60
    slow = Sealed(tls.port, tls.context(), receive_buffer=1 << 16)
    with slow:
        await in_thread(slow.shake)
        await in_thread(slow.auth, tls.port, token, "agent")
        async with await Client.authed(tls, token, "phone", ssl=tls.context()) as phone:

            async def send():
                for text in texts:
                    await phone.send_text(text)

            sending = asyncio.create_task(send())
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(sending), 1)
            assert '"online"' in await in_thread(slow.message)
            for text in texts:
                assert await in_thread(slow.message) == text
            await sending


async def test_a_peer_that_never_reads_is_closed(start_relay, made):
    tls = sealed.start(start_relay, made, "--write-timeout", "1s")
    token = await tls.token()
    with Sealed(tls.port, tls.context(), receive_buffer=4096) as slow:
        await in_thread(slow.shake)
        await in_thread(slow.auth, tls.port, token, "agent")
        async with await Client.authed(tls, token, "phone", ssl=tls.context()) as phone:
            text, _ = sized("file.data", 300_000)
            seen = None
            for _ in range(200):
                await phone.send_text(text)
                try:
                    seen = await phone.receive(timeout=0.01)
                    break
                except TimeoutError:
                    pass
            seen = seen or await phone.receive()
            assert seen["payload"] == {"peer": "offline"} or seen["payload"]["code"] == "PEER_OFFLINE", seen


async def test_the_end_is_said_on_both_sides(tls):
    def client():
        with Sealed(tls.port, tls.context()) as client:
            client.shake()
            client.send(http1.head("GET", "/health", tls.port))
            assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200")
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.unwrap()
            client.socket.sendall(client.outgoing.read())
            while True:
                try:
                    client.tls.unwrap()
                    break
                except ssl.SSLWantReadError:
                    client.feed()
            assert client.socket.recv(1) == b""
        with Sealed(tls.port, tls.context()) as client:
            client.shake()
            client.send(http1.head("GET", "/health", tls.port, [("Connection", "close")]))
            with pytest.raises((EOFError, ssl.SSLZeroReturnError)) as end:
                while True:
                    client.more()
            assert end.type is not EOFError or client.tls.pending() == 0

    await in_thread(client)


@pytest.mark.parametrize("version", VERSIONS)
async def test_python_resumes_a_session(tls, version):
    context = tls.context(version)

    def get(session):
        with socket.create_connection(("127.0.0.1", tls.port), timeout=15) as plain:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
                secure.sendall(http1.head("GET", "/health", tls.port))
                assert secure.recv(65536).startswith(b"HTTP/1.1 200")
                return secure.session, secure.session_reused, secure.selected_alpn_protocol()

    context.set_alpn_protocols(["h2", "http/1.1"])
    session, reused, protocol = await in_thread(get, None)
    assert (reused, protocol) == (False, "http/1.1")
    for _ in range(2):
        session, reused, _ = await in_thread(get, session)
        assert reused
    deadline = time.monotonic() + 10
    while (await tls.handshakes()).get("resumed") != 2:
        assert time.monotonic() < deadline, await tls.handshakes()
        await asyncio.sleep(0.1)


def read_until(process, pattern):
    """What `openssl s_client` says, up to the pattern."""
    text = b""
    while not (found := re.search(pattern, text)):
        piece = process.stdout.read1(65536)
        assert piece, text.decode(errors="replace")
        text += piece
    return found, text


@pytest.mark.parametrize("version, protocol", [("-tls1_2", b"TLSv1.2"), ("-tls1_3", b"TLSv1.3")])
async def test_openssl_speaks_both_versions_and_resumes(tls, tmp_path, version, protocol):
    def run(*flags):
        with sealed.openssl(tls, version, "-ign_eof", "-alpn", "http/1.1", *flags) as client:
            client.stdin.write(http1.head("GET", "/health", tls.port, [("Connection", "close")]))
            client.stdin.flush()
            return client.communicate(timeout=30)[0]

    session = tmp_path / "session"
    first = await in_thread(run, "-sess_out", session)
    assert b"New, " + protocol in first and b"HTTP/1.1 200" in first and b"ALPN protocol: http/1.1" in first
    assert b"Verify return code: 0 (ok)" in first
    second = await in_thread(run, "-sess_in", session)
    assert b"Reused, " + protocol in second and b"HTTP/1.1 200" in second
    if version == "-tls1_3":
        assert b"X25519MLKEM768" in first or b"X25519" in first


@pytest.mark.parametrize(
    "name, shown", [("other.example", b"other.example"), ("wrong.example", b"relay.example"), (None, b"relay.example")]
)
async def test_the_name_chooses_the_certificate_and_the_first_is_for_all_others(tls, name, shown):
    def run():
        with sealed.openssl(tls, name=name) as client:
            return client.communicate(timeout=30)[0]

    assert b"subject=CN=" + shown in (await in_thread(run)).replace(b"CN = ", b"CN=")


async def test_openssl_renews_its_keys(tls):
    def run():
        request = http1.head("GET", "/health", tls.port)
        with sealed.openssl(tls, "-tls1_3") as client:
            for command in (b"K\n", b"k\n", b"K\n"):
                client.stdin.write(request)
                client.stdin.flush()
                read_until(client, rb"HTTP/1\.1 200[^}]*}")
                client.stdin.write(command)
                client.stdin.flush()
                read_until(client, b"KEYUPDATE")
            client.stdin.write(request)
            client.stdin.flush()
            read_until(client, rb"HTTP/1\.1 200")

    await in_thread(run)


async def test_renegotiation_is_refused(tls):
    def run():
        with sealed.openssl(tls, "-tls1_2") as client:
            client.stdin.write(http1.head("GET", "/health", tls.port))
            client.stdin.flush()
            read_until(client, rb"HTTP/1\.1 200[^}]*}")
            client.stdin.write(b"R\n")
            client.stdin.flush()
            return client.communicate(timeout=30)[0]

    assert b"no renegotiation" in await in_thread(run)


async def test_curl_gets_an_answer_and_without_tls_is_told(tls):
    def curl(*arguments):
        command = ["curl", "--silent", "--show-error", "--max-time", "15", "--cacert", tls.ca, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    for flags in ([], ["--tls-max", "1.2"]):
        answer = await in_thread(curl, *flags, f"https://localhost:{tls.port}/health")
        assert json.loads(answer.stdout)["status"] == "ok", answer
    answer = await in_thread(curl, "--include", f"http://localhost:{tls.port}/health")
    assert answer.stdout.startswith("HTTP/1.1 400 ") and "wss://" in answer.stdout
    answer = await in_thread(curl, "--cacert", "/dev/null", f"https://localhost:{tls.port}/health")
    assert answer.returncode == 77 or answer.returncode == 60, answer
    assert (await in_thread(curl, f"https://localhost:{tls.port}/health")).returncode == 0


async def test_the_admin_command_checks_the_certificate(tls):
    def admin(*arguments):
        url = ["--relay", f"https://localhost:{tls.port}"]
        environment = {"RELAY_ADMIN_KEY": ADMIN_KEY}
        command = [binary(), "admin", *url, *arguments, "--json", "tokens", "list"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = await in_thread(admin, "--ca", tls.ca)
    assert done.returncode == 0 and json.loads(done.stdout) == {"tokens": []}, done
    done = await in_thread(admin)
    assert done.returncode == 1 and "certificate" in done.stderr, done


async def test_whoever_leaves_http_waiting_gets_a_farewell_before_the_end(start_relay, made):
    tls = sealed.start(start_relay, made, "--auth-timeout", "1s")
    requests = {
        "nothing": b"",
        "half": b"GET /health HTTP/1.1\r\nHost: ",
        "kept alive": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    }

    def wait_out(version, request):
        with socket.create_connection(("127.0.0.1", tls.port), timeout=15) as plain:
            # An end of the connection without close_notify is an error here.
            with tls.context(version).wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as connection:
                connection.sendall(request)
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                return answer

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for name, request in requests.items():
            answer = await in_thread(wait_out, version, request)
            assert answer.startswith(b"HTTP/1.1 200 ") == (name == "kept alive"), (version, name)


async def test_what_is_no_handshake_is_closed_in_time_and_counted(start_relay, made):
    tls = sealed.start(start_relay, made, "--auth-timeout", "1s")
    hello = Sealed(tls.port, tls.context())
    with pytest.raises(ssl.SSLWantReadError):
        hello.tls.do_handshake()
    client_hello = hello.outgoing.read()
    hello.socket.close()

    def send(data):
        with socket.create_connection(("127.0.0.1", tls.port), timeout=15) as connection:
            begun = time.monotonic()
            if data:
                connection.sendall(data)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer, time.monotonic() - begun

    cases = {
        "nothing": b"",
        "half": client_hello[: len(client_hello) // 2],
        "stalled": client_hello,
        "garbage": bytes(range(128, 256)),
        "record of garbage": b"\x16\x03\x01\x00\x20" + bytes(32),
        "long record": b"\x16\x03\x01\xff\xff",
        "proxy header": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "plain http": b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for name, data in cases.items():
        answer, seconds = await in_thread(send, data)
        assert seconds < 5, name
        assert answer.startswith(b"HTTP/1.1 400 ") == (name == "plain http"), name
        assert (answer[:1] == b"\x15") == (name in ("record of garbage", "long record")), (name, answer)
    assert "WARN" not in tls.plain.log(), "nobody fills the log from outside"
    # Zeros in a record are a message, and one that has no place.
    expected = {"timed_out": 3, "not_tls": 2, "refused": 1, "plain_http": 1, "proxy_header": 1}
    deadline = time.monotonic() + 10
    while True:
        counts = {name: count for name, count in (await tls.handshakes()).items() if count and name != "gone"}
        if counts == expected:
            break
        assert time.monotonic() < deadline, counts
        await asyncio.sleep(0.1)


async def test_a_storm_of_handshakes_ends_and_the_pair_talks_on(tls):
    """A crowd shakes hands while a pair talks: everybody gets there."""
    token = await tls.token()

    async def one():
        async with await Client.open(tls, ssl=tls.context()):
            pass

    async with await Client.authed(tls, token, "agent", ssl=tls.context()) as agent:
        async with await Client.authed(tls, token, "phone", ssl=tls.context()) as phone:
            await agent.expect("status")
            crowd = asyncio.gather(*(one() for _ in range(50)))
            for number in range(200):
                await phone.send("chat.send", {"n": number})
                assert await agent.expect("chat.send") == {"n": number}
            await crowd


LOADTEST = pathlib.Path(binary()).with_name("coralmux-loadtest")


@pytest.mark.skipif(not LOADTEST.exists(), reason="cargo test -p coralmux-loadtest builds it")
async def test_the_load_test_speaks_tls_and_checks_the_certificate(tls, tmp_path):
    def load(*arguments):
        url = ["--url", tls.url, "--admin-key", ADMIN_KEY]
        return subprocess.run([LOADTEST, *arguments, *url], capture_output=True, text=True, timeout=60)

    pingpong = ["pingpong", "--pairs", "5", "--bytes", "40000", "--seconds", "0.5", "--warm-up", "0.1", "--sleep"]
    for check in (["--ca", tls.ca], ["--insecure"]):
        done = await in_thread(load, *pingpong, *check)
        result = json.loads(done.stdout)
        assert result["errors"] == {} and result["figures"]["messages_per_second"] > 10, done
    done = await in_thread(load, *pingpong)
    assert done.returncode != 0 and "certificate" in done.stderr, done
    before = (await tls.handshakes()).get("resumed", 0)
    done = await in_thread(load, "storm", "--pairs", "20", "--herd", "20", "--insecure", "--resume")
    assert json.loads(done.stdout)["latency_us"]["come back"]["count"] == 40
    deadline = time.monotonic() + 10
    while (await tls.handshakes()).get("resumed", 0) < before + 40:
        assert time.monotonic() < deadline, await tls.handshakes()
        await asyncio.sleep(0.1)


@pytest.mark.skipif(not shutil.which("java"), reason="no Java here; tests/packages has it")
async def test_java_talks_over_tls(tls, made):
    token = await tls.token()
    source = http1.__file__.replace("http1.py", "Pair.java")

    def run():
        command = ["java", "-XX:TieredStopAtLevel=1", source, tls.url, tls.ca, token]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = await in_thread(run)
    assert done.stdout.strip() == "ok", done
