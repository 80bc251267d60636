"""WIRE: HTTP API, on the same port. Errors are JSON beside the status code."""

import asyncio
import time

import pytest

import http1
from client import Client, pair
from relay import ADMIN_KEY, api_time, free_port

UNKNOWN = "oc_pair_" + "0" * 32


async def test_pair_needs_the_admin_key(relay):
    """`POST /api/v1/pair` with `X-Admin-Key`: 201 {"token":"oc_pair_..."}; 401 without the key."""
    answer = await relay.http("POST", "/api/v1/pair", admin=True)
    assert answer.status == 201
    assert answer.json()["token"].startswith("oc_pair_")
    for headers in ([], [("X-Admin-Key", "")], [("X-Admin-Key", "wrong")], [("X-Admin-Key", ADMIN_KEY + "y")]):
        answer = await relay.http("POST", "/api/v1/pair", headers=headers)
        assert answer.status == 401
        assert isinstance(answer.json(), dict), "errors are JSON"


@pytest.mark.parametrize(
    "method,path",
    [
        ("POST", "/api/v1/pair"),
        ("DELETE", f"/api/v1/pair/{UNKNOWN}"),
        ("GET", "/api/v1/tokens"),
        ("GET", "/api/v1/tokens/0011223344556677"),
        ("PATCH", "/api/v1/tokens/0011223344556677"),
        ("DELETE", "/api/v1/tokens/0011223344556677"),
    ],
)
async def test_admin_calls_are_closed_without_the_key(relay, method, path):
    """An empty key never means open."""
    body = {} if method == "PATCH" else None
    assert (await relay.http(method, path, body)).status == 401
    assert (await relay.http(method, path, body, headers=[("X-Admin-Key", "")])).status == 401


async def test_presence_says_who_is_online(relay):
    """`GET /api/v1/pair/{token}`: 200 {"phone":bool,"agent":bool}."""
    token = await relay.token()
    path = f"/api/v1/pair/{token}"

    async def presence():
        answer = await relay.http("GET", path)
        assert answer.status == 200
        return {k: answer.json()[k] for k in ("phone", "agent")}

    assert await presence() == {"phone": False, "agent": False}
    async with await Client.authed(relay, token, "agent") as agent:
        assert await presence() == {"phone": False, "agent": True}
        async with await Client.authed(relay, token, "phone"):
            await agent.expect("status")
            assert await presence() == {"phone": True, "agent": True}
        await agent.expect("status")
        assert await presence() == {"phone": False, "agent": True}


@pytest.mark.parametrize("token", [UNKNOWN, "nonsense", "oc_pair_%20"])
async def test_presence_of_a_token_that_does_not_exist_is_false_twice(relay, token):
    """Both false for a token that does not exist."""
    answer = await relay.http("GET", f"/api/v1/pair/{token}")
    assert answer.status == 200
    assert answer.json() == {"phone": False, "agent": False}


async def test_delete_is_204_and_204_again_when_repeated(relay):
    """`DELETE /api/v1/pair/{token}` with `X-Admin-Key`: 204; 204 again when repeated; 401 without the key."""
    token = await relay.token()
    assert (await relay.http("DELETE", f"/api/v1/pair/{token}")).status == 401
    async with await Client.authed(relay, token, "agent"):
        pass
    for _ in range(3):
        assert (await relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)).status == 204
    assert (await relay.http("DELETE", f"/api/v1/pair/{UNKNOWN}", admin=True)).status == 204


async def test_register_is_limited_to_5_an_hour_for_an_address(start_relay):
    """`POST /api/v1/register`: 201 {"token":"..."}; 429 with `Retry-After` over the limit (5 an hour an address)."""
    relay = start_relay()
    for _ in range(5):
        answer = await relay.http("POST", "/api/v1/register")
        assert answer.status == 201
        async with await Client.authed(relay, answer.json()["token"], "agent"):
            pass
    # X-Forwarded-For counts only from proxies that the operator named.
    for headers in ([], [("X-Forwarded-For", "203.0.113.7")]):
        answer = await relay.http("POST", "/api/v1/register", headers=headers)
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        assert isinstance(answer.json(), dict)


async def test_x_forwarded_for_counts_from_a_proxy_that_the_operator_named(start_relay):
    """registrations: 5 an hour for each client address (an IPv6 /64 counts as one)."""
    relay = start_relay("--trusted-proxy", "127.0.0.1", "--register-rate", "1")

    async def register(client):
        return (await relay.http("POST", "/api/v1/register", headers=[("X-Forwarded-For", client)])).status

    assert [await register("203.0.113.7"), await register("203.0.113.7")] == [201, 429]
    assert await register("203.0.113.8") == 201
    assert await register("2001:db8:1:2::1") == 201
    assert await register("2001:db8:1:2:ffff::9") == 429, "the same /64"
    assert await register("2001:db8:1:3::1") == 201


async def test_an_operator_can_turn_registration_off(start_relay):
    """`POST /api/v1/register`: an operator can turn it off."""
    relay = start_relay("--registration", "off")
    answer = await relay.http("POST", "/api/v1/register")
    assert answer.status == 403
    assert isinstance(answer.json(), dict)
    assert await relay.token()


async def test_health_says_ok_and_counts(relay):
    """`GET /health`: 200 {"status":"ok","connections":n,"sessions":n,"uptime_sec":n,...}."""
    async with pair(relay):
        health = (await relay.http("GET", "/health")).json()
        assert health["status"] == "ok"
        assert health["connections"] >= 2 and health["sessions"] >= 1
        assert isinstance(health["uptime_sec"], int) and health["uptime_sec"] >= 0


async def test_a_token_may_have_a_label_an_expiry_and_limits(relay):
    """`POST /api/v1/pair` takes an optional JSON body; `GET /api/v1/tokens/{id}` shows it, never the token itself."""
    expires_at = api_time(int(time.time()) + 3600)
    created = await relay.pair(label="kitchen \u00e9", expires_at=expires_at, limits={"agent_per_minute": 7})
    answer = await relay.http("GET", f"/api/v1/tokens/{created['id']}", admin=True)
    assert answer.status == 200
    shown = answer.json()
    assert shown["id"] == created["id"] and len(created["id"]) == 16
    assert (shown["label"], shown["expires_at"]) == ("kitchen \u00e9", expires_at)
    assert shown["limits"] == {"agent_per_minute": 7}
    assert created["token"].encode() not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        {"label": 5},
        {"label": "x" * 201},
        {"expires_at": "tomorrow"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"limits": {"unknown_limit": 1}},
        {"limits": {"phone_per_minute": -1}},
        {"unknown": 1},
    ],
)
async def test_a_body_that_is_not_right_is_400(relay, body):
    answer = await relay.http("POST", "/api/v1/pair", body, admin=True)
    assert answer.status == 400
    assert isinstance(answer.json(), dict)


async def test_patch_changes_what_is_there_and_null_clears(relay):
    """`PATCH /api/v1/tokens/{id}`: label, expiry, limits; what is there changes, null clears; 404 for no such token."""
    created = await relay.pair(label="old", limits={"phone_per_minute": 2})
    path = f"/api/v1/tokens/{created['id']}"
    changed = await relay.http("PATCH", path, {"label": "new"}, admin=True)
    assert changed.status == 200
    assert changed.json()["label"] == "new"
    assert changed.json()["limits"] == {"phone_per_minute": 2}, "what is not named stays"
    assert (
        await relay.http("PATCH", path, {"label": None, "limits": {"daily_quota_bytes": 77}}, admin=True)
    ).status == 200
    shown = (await relay.http("GET", path, admin=True)).json()
    assert shown.get("label") is None
    assert shown["limits"] == {"daily_quota_bytes": 77}
    async with await Client.authed(relay, created["token"], "agent") as agent:
        assert agent.auth_ok["daily_quota_bytes"] == 77
    assert (await relay.http("PATCH", "/api/v1/tokens/0123456789abcdef", {"label": "x"}, admin=True)).status == 404


async def test_new_limits_hold_for_those_who_are_connected(relay):
    """Each limit can be set per token through the admin API: a session that is under way obeys from then on."""
    created = await relay.pair()
    async with pair(relay, created["token"]) as (agent, phone):
        await phone.send("chat.send", {"n": 1})
        assert await agent.expect("chat.send") == {"n": 1}
        path = f"/api/v1/tokens/{created['id']}"
        assert (await relay.http("PATCH", path, {"limits": {"daily_quota_bytes": 1}}, admin=True)).status == 200
        for _ in range(200):  # another thread owns the session: the change is on its way
            await phone.send("chat.send", {"n": 2})
            await phone.send("ping")
            if (await phone.receive())["type"] == "chat.error":
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the new limit never held")


async def test_a_token_shows_its_usage(relay):
    """`GET /api/v1/tokens/{id}` with usage: within a second or so, for shards hand their sums over once a second."""
    created = await relay.pair()
    async with pair(relay, created["token"]) as (agent, phone):
        await phone.send("chat.send", {"text": "x" * 1000})
        used = len((await agent.receive_text()).encode())
        for _ in range(200):
            shown = (await relay.http("GET", f"/api/v1/tokens/{created['id']}", admin=True)).json()
            if str(used) in str(shown):
                break
            await asyncio.sleep(0.05)
        assert str(used) in str(shown), shown


async def test_the_list_of_tokens_is_paged(start_relay):
    """`GET /api/v1/tokens` with the admin key, paged, in order of creation; a token's text is in no page."""
    relay = start_relay()
    created = [await relay.pair(label=f"number {n}") for n in range(7)]
    ids, after = [], None
    for _ in range(10):
        query = "?limit=3" + (f"&after={after}" if after is not None else "")
        answer = await relay.http("GET", "/api/v1/tokens" + query, admin=True)
        assert answer.status == 200
        assert b"oc_pair_" not in answer.body
        page = answer.json()
        assert len(page["tokens"]) <= 3
        ids += [token["id"] for token in page["tokens"]]
        after = page.get("next")
        if after is None:
            break
    assert ids == [token["id"] for token in created]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=x"])
async def test_a_page_that_cannot_be_is_400(relay, query):
    assert (await relay.http("GET", f"/api/v1/tokens?{query}", admin=True)).status == 400


async def test_deleting_by_id_is_204_then_404(relay):
    """`DELETE /api/v1/tokens/{id}`: 204, or 404."""
    created = await relay.pair()
    path = f"/api/v1/tokens/{created['id']}"
    assert (await relay.http("DELETE", path, admin=True)).status == 204
    assert (await relay.http("DELETE", path, admin=True)).status == 404
    assert (await relay.http("GET", path, admin=True)).status == 404


@pytest.mark.parametrize(
    "method,path,status", [("GET", "/nothing", 404), ("GET", "/api/v1/x", 404), ("PUT", "/health", 405)]
)
async def test_unknown_paths_and_methods_have_json_errors(relay, method, path, status):
    answer = await relay.http(method, path)
    assert answer.status == status
    assert isinstance(answer.json(), dict)


async def test_keep_alive_serves_many_requests_on_one_connection(relay):
    """Keep-alive works: also for calls that another thread answers, and after errors."""
    async with await http1.Connection.open(relay.port) as connection:
        admin = [("X-Admin-Key", relay.admin_key)]
        for _ in range(5):
            for method, path, headers, status in [
                ("GET", "/health", [], 200),
                ("POST", "/api/v1/pair", admin, 201),
                ("POST", "/api/v1/pair", [], 401),
                ("GET", "/nothing", [], 404),
                ("DELETE", f"/api/v1/pair/{UNKNOWN}", admin, 204),
            ]:
                await connection.send(http1.encode(method, path, relay.port, headers))
                assert (await connection.read()).status == status


async def test_pipelined_requests_are_answered_in_order(relay):
    """Pipelining works: the slow ones in between (another thread answers) do not let later ones overtake."""
    async with await http1.Connection.open(relay.port) as connection:
        admin = [("X-Admin-Key", relay.admin_key)]
        requests = []
        for number in range(6):
            requests.append(http1.encode("POST", "/api/v1/pair", relay.port, admin, {"label": f"pipelined {number}"}))
            requests.append(http1.encode("GET", "/health", relay.port))
        await connection.send(b"".join(requests))
        for _ in range(6):
            made = await connection.read()
            assert made.status == 201 and "token" in made.json()
            assert (await connection.read()).json()["status"] == "ok"


async def test_connection_close_is_honoured(relay):
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(http1.encode("GET", "/health", relay.port, [("Connection", "close")]))
        assert (await connection.read()).status == 200
        assert await connection.ended() == b""


async def test_http_1_0_is_answered_and_closed(relay):
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert (await connection.read()).status == 200
        assert await connection.ended() == b""


@pytest.mark.parametrize("whole", [True, False])
async def test_a_head_over_16_kib_is_refused(relay, whole):
    """A request head is at most 16 KiB: more is refused (431), also before its end has come."""
    head = http1.head("GET", "/health", relay.port, [(f"X-{n}", "y" * 500) for n in range(40)])
    assert len(head) > 16384
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head if whole else head[:17000])
        assert (await connection.read()).status in (400, 431)
        await connection.ended()


@pytest.mark.parametrize("piece", [16384, 1000, 1])
async def test_a_head_below_16_kib_is_taken(relay, piece):
    """Login proxies send cookies of many KiB; a head may come in any pieces."""
    head = http1.head("GET", "/health", relay.port, [(f"X-{n}", "y" * 500) for n in range(31)])
    assert 15500 < len(head) <= 16384
    async with await http1.Connection.open(relay.port) as connection:
        for at in range(0, len(head), piece):
            await connection.send(head[at : at + piece])
        assert (await connection.read()).status == 200
        await connection.send(http1.head("GET", "/readyz", relay.port))
        assert (await connection.read()).status == 200


SMUGGLED = "GET /api/v1/pair/smuggled HTTP/1.1\r\nHost: relay\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        f"Content-Length: {len(SMUGGLED)}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: x, chunked",
        "transfer-encoding:\tchunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding:\x0bchunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        f"Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}",
        f"Content-Length: {len(SMUGGLED)}\r\ncontent-length: 0",
        "Content-Length: 0\r\nContent-Length: 0",
        f"Content-Length: 0, {len(SMUGGLED)}",
        "Content-Length: 0 0",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Content-Length: 1e1",
        "Content-Length:",
        "Content-Length: 0;",
        f"Content-Length\t: {len(SMUGGLED)}",
        f"Content-Length : {len(SMUGGLED)}",
        "Content-Length: 99999999999999999999",
        "Content-Length: 0\0",
        "X: \0",
        "X\0: y",
        "Host: other",
    ],
)
async def test_a_request_whose_end_is_in_doubt_ends_the_connection(relay, fields):
    """Request smuggling: behind whatever two readers could read differently, nothing more is answered."""
    first = f"POST /api/v1/pair HTTP/1.1\r\nHost: relay\r\n{fields}\r\n\r\n".encode("latin-1")
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(http1.head("GET", "/health", relay.port))
        assert (await connection.read()).status == 200, "the connection is kept alive"
        await connection.send(first + SMUGGLED.encode())
        answer = await connection.read()
        assert answer.status in (400, 413, 501), answer
        assert answer.headers["connection"] == "close"
        assert await connection.ended() == b"", "the second request was answered"


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\r\n"])
async def test_only_crlf_ends_a_line(relay, line_end):
    head = line_end.join(["GET /health HTTP/1.1", "Host: relay", "", ""]).encode()
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head + SMUGGLED.encode())
        assert (await connection.read()).status == 400
        assert await connection.ended() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/api%2fv1%2ftokens",
        "/api/v1%2Ftokens",
        "/%61pi/v1/tokens",
        "/api/v1/%74okens",
        "/x/%2e%2e/api/v1/tokens",
        "/api/v1/./tokens",
        "/api//v1/tokens",
        "//api/v1/tokens",
        "/api/v1/tokens%00",
        "/api/v1/tokens%3f",
        "/api/v1/tokens;x",
    ],
)
async def test_a_path_is_routed_as_it_is_written(relay, path):
    """A filter of paths in a proxy in front cannot be passed with another spelling."""
    assert (await relay.http("GET", path, admin=True)).status in (400, 404)
    assert (await relay.http("GET", "/api/v1/tokens", admin=True)).status == 200


FOREIGN = [
    [("Origin", "https://evil.example")],
    [("Origin", "null")],
    [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
    [("Sec-Fetch-Site", "cross-site")],
    [("Sec-Fetch-Site", "same-site")],
    [("Origin", "http://evil.example"), ("Host", "evil.example")],
    [("Origin", "http://evil.example"), ("Host", "evil.example"), ("Sec-Fetch-Site", "same-origin")],
]


def with_host(port, headers):
    """A registration, under another Host where one is among the headers."""
    host = dict(headers).get("Host", f"127.0.0.1:{port}")
    rest = [(name, value) for name, value in headers if name != "Host"]
    lines = ["POST /api/v1/register HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in rest)]
    lines += ["Content-Type: text/plain", "Content-Length: 0", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


async def register_with(relay, headers):
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(with_host(relay.port, headers))
        return await connection.read()


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_cannot_register_tokens(relay, headers):
    """A request that a browser sends without asking first (CORS), also where the page's name leads to the relay."""
    answer = await register_with(relay, headers)
    assert answer.status == 403
    assert answer.json()["error"]["code"] == "ORIGIN_NOT_ALLOWED"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "relay.example.com")],
        [("Sec-Fetch-Site", "none")],
        [("Origin", "http://localhost:8080"), ("Host", "localhost:8080")],
        [("Origin", "https://relay.example.com"), ("Host", "127.0.0.1:8080"), ("Sec-Fetch-Site", "same-origin")],
        [("Origin", "https://named.example"), ("Host", "named.example")],
        [("Origin", "https://app.example.com"), ("Sec-Fetch-Site", "cross-site")],
    ],
)
async def test_programs_and_the_relays_own_page_may_register(start_relay, headers):
    relay = start_relay("--own-name", "named.example", "--allow-origin", "https://app.example.com")
    assert (await register_with(relay, headers)).status == 201


async def test_behind_a_trusted_proxy_the_own_page_has_any_name(start_relay):
    relay = start_relay("--trusted-proxy", "127.0.0.1")
    headers = [("Origin", "https://relay.example.com"), ("Host", "relay.example.com"), ("X-Forwarded-For", "192.0.2.1")]
    assert (await register_with(relay, headers)).status == 201


async def test_metrics_are_told_under_a_name_of_the_relays_own_only(start_relay):
    """A page whose name leads to this machine (DNS rebinding) reads no metrics."""
    port = free_port()
    start_relay("--metrics-addr", f"127.0.0.1:{port}", "--own-name", "metrics.example.com")

    async def status(host):
        async with await http1.Connection.open(port) as connection:
            await connection.send(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await connection.read()
            if answer.status != 200:
                assert "--own-name" in answer.json()["error"]["message"]
            return answer.status

    for own in (f"127.0.0.1:{port}", f"localhost:{port}", "[::1]", "relay:9464", "metrics.example.com"):
        assert await status(own) == 200, own
    for other in ("evil.example", f"evil.example:{port}", "metrics.example.com.evil.example", "127.0.0.1.nip.io"):
        assert await status(other) == 421, other


async def test_every_answer_says_that_it_is_what_it_says(relay):
    """`X-Content-Type-Options: nosniff`, and no promise of TLS where there is none."""
    for method, path in (("GET", "/"), ("GET", "/health"), ("GET", "/nothing"), ("POST", "/api/v1/pair"), ("GET", "/ws"),
                         ("GET", "/api/v1/openapi.json"), ("GET", "/phone/qr.js"), ("POST", "/api/v1/register")):
        answer = await relay.http(method, path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"GET\r\n\r\n", b"\r\n" * 40 + b"x\r\n\r\n"],
)
async def test_garbage_ends_the_connection_and_nothing_else(relay, garbage):
    """TLS to a plain port and other garbage: refused or closed; the relay lives on."""
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(garbage + b"\r\n\r\n")
        answer = await connection.ended(timeout=15)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (await relay.http("GET", "/health")).status == 200


async def test_a_body_over_4_kib_is_refused(relay):
    answer = await relay.http("POST", "/api/v1/pair", b'{"label":"x"}' + b" " * 5000, admin=True)
    assert answer.status == 413


@pytest.mark.parametrize("length", ["-1", "99999999999999999999", "5, 6", "x"])
async def test_a_content_length_that_cannot_be_is_refused(relay, length):
    head = http1.head(
        "POST", "/api/v1/pair", relay.port, [("X-Admin-Key", relay.admin_key), ("Content-Length", length)]
    )
    async with await http1.Connection.open(relay.port) as connection:
        await connection.send(head)
        assert (await connection.read()).status in (400, 413)
