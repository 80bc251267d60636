"""The metrics, as a scrape of a real relay shows them, and the health endpoints beside them."""

import asyncio
import re
import signal
import socket
import subprocess
import time

import http1
from certificates import certificate, tls_flags
from client import Client, pair, sized
from manager import stopped_shard
from metrics import measured, scrape, scrape_until
from nats import Nats
from relay import GENEROUS, ROOT, free_port


def documented():
    """The table of docs/operations/monitoring.md: name to kind and help."""
    text = (ROOT / "docs" / "operations" / "monitoring.md").read_text()
    return {name: (kind, help) for name, kind, help in re.findall(r"^\| `(coralmux_\w+)` \| (\w+) \| (.*) \|$", text, re.M)}


async def test_what_a_pair_does_is_counted(start_relay):
    relay, port = measured(start_relay, *GENEROUS)
    before = await scrape_until(port, lambda figures: "coralmux_receive_buffers" in figures.kinds)
    assert before.get("coralmux_messages_total") == 0
    token = await relay.token()
    async with pair(relay, token) as (agent, phone):
        text, _ = sized("chat.send", 1000)
        for _ in range(50):
            await phone.send_text(text)
        for _ in range(50):
            await agent.receive()
        large, _ = sized("agent.result", 300_000)
        await agent.send_text(large)
        await phone.receive()
        await phone.send("ping")
        await phone.expect("pong")
        await phone.send("chat.done")
        await phone.expect_error("INVALID_MESSAGE")
        # The pair's shard and the one that accepted them publish at times of their own.
        after = await scrape_until(
            port,
            lambda figures: figures.get("coralmux_refusals_total", code="INVALID_MESSAGE") == 1
            and figures.get("coralmux_handshake_seconds_count") == 2,
        )
        there = {"direction": "phone_to_agent", "outcome": "forwarded"}
        assert after.get("coralmux_messages_total", **there) == 50
        assert after.get("coralmux_message_bytes_total", **there) == 50_000
        back = {"direction": "agent_to_phone", "outcome": "forwarded"}
        assert after.get("coralmux_messages_total", **back) == 1
        assert after.get("coralmux_message_bytes_total", **back) == 300_000
        assert after.get("coralmux_messages_total", direction="phone_to_agent", outcome="refused") == 1
        assert after.get("coralmux_messages_total", direction="phone_to_agent", outcome="answered") == 1
        timed = after.get("coralmux_forward_seconds_count")
        behind = after.get("coralmux_messages_queued_behind_total")
        assert timed + behind == 51
        assert 0 < after.get("coralmux_forward_seconds_sum") < 51 * 5
        assert after.get("coralmux_forward_seconds_bucket", le="+Inf") == timed
        for role in ("phone", "agent"):
            assert after.get("coralmux_connections", state="open", role=role) == 1
            assert after.get("coralmux_authentications_total", role=role) == 1
        assert after.get("coralmux_sessions", state="paired") == 1
        assert after.get("coralmux_handshake_seconds_count") == 2
        assert after.get("coralmux_auth_seconds_count") == 2
        assert after.get("coralmux_http_responses_total", status="1xx") == 2
        assert after.get("coralmux_store_write_seconds_count") >= 1
        assert token not in after.text
    gone = await scrape_until(port, lambda figures: figures.get("coralmux_connections", state="open") == 0)
    assert gone.get("coralmux_connections_closed_total", reason="client") == 2
    assert gone.get("coralmux_sessions") == 0


async def test_reconnecting_and_taking_over_leave_the_gauges_right(start_relay):
    relay, port = measured(start_relay, *GENEROUS)
    tokens = [await relay.token() for _ in range(4)]
    for _ in range(2):
        for token in tokens:
            async with await Client.authed(relay, token, "agent") as old:
                async with await Client.authed(relay, token, "agent") as new:
                    assert await old.closed() == (4001, "replaced")
                    await new.expect_silence()
    figures = await scrape_until(
        port,
        lambda figures: figures.get("coralmux_connections") == 0 and figures.get("coralmux_authentications_total") == 16,
    )
    assert figures.get("coralmux_sessions") == 0
    assert figures.get("coralmux_connections_closed_total", reason="replaced") == 8
    assert figures.get("coralmux_authentications_total", role="agent") == 16
    closed = figures.get("coralmux_connections_closed_total")
    assert figures.get("coralmux_connections_accepted_total") == closed


async def test_refusals_are_counted_by_code(start_relay):
    relay, port = measured(start_relay, "--phone-rate", "2", "--daily-quota", "2000")
    token = await relay.token()
    async with await Client.open(relay) as stranger:
        await stranger.send("auth", {"token": "oc_pair_" + "0" * 32, "role": "phone"})
        await stranger.expect("auth.fail")
    async with await Client.authed(relay, token, "phone") as phone:
        await phone.send("chat.send")
        await phone.expect_error("PEER_OFFLINE")
        async with await Client.authed(relay, token, "agent") as agent:
            await phone.expect("status")
            await agent.send_text(sized("agent.result", 2001)[0])
            await agent.expect_error("DAILY_QUOTA_EXCEEDED")
            await phone.send("chat.send")
            await agent.receive()
            await phone.send("chat.send")
            await phone.expect_error("RATE_LIMITED")
            figures = await scrape_until(
                port, lambda figures: figures.get("coralmux_refusals_total", code="RATE_LIMITED") == 1
            )
    for code in ("UNAUTHORIZED", "PEER_OFFLINE", "DAILY_QUOTA_EXCEEDED"):
        assert figures.get("coralmux_refusals_total", code=code) == 1, code
    assert figures.get("coralmux_refusals_total") == 4


async def test_every_metric_of_the_documentation_is_there_and_no_other(start_relay, tmp_path):
    tls = tls_flags(certificate(tmp_path, "cert", "localhost", days=90))
    nats = Nats(tmp_path / "nats").start()
    try:
        shared = ("--cluster", nats.url)
        relay, port = measured(start_relay, "-addr", f"tls://127.0.0.1:{free_port()}", *tls, *shared)
        figures = await scrape_until(port, lambda figures: "coralmux_receive_buffers" in figures.kinds)
    finally:
        nats.kill()
    table = documented()
    assert set(figures.kinds) == set(table)
    for name, (kind, help) in table.items():
        assert figures.kinds[name] == kind, name
        assert figures.helps[name] == help, name
    ends = figures.get("coralmux_certificate_expiry_timestamp_seconds", name=str(tmp_path / "cert.pem"))
    assert 89 * 86400 < ends - time.time() < 91 * 86400
    checked = subprocess.run(["promtool", "check", "metrics"], input=figures.text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_listener_serves_health_and_nothing_that_changes_anything(start_relay):
    relay, port = measured(start_relay)
    health = await http1.request(port, "GET", "/health")
    assert health.status == 200 and health.json()["status"] == "ok"
    assert (await http1.request(port, "GET", "/livez")).body == b"ok\n"
    assert (await http1.request(port, "GET", "/readyz")).status == 200
    assert (await http1.request(port, "GET", "/api/v1/tokens")).status == 404
    assert (await http1.request(port, "POST", "/metrics")).status == 405
    # Who says nothing holds the others up for a moment, and no longer.
    with socket.create_connection(("127.0.0.1", port)):
        assert (await http1.request(port, "GET", "/livez")).status == 200


async def test_health_on_the_relays_port_says_more(start_relay):
    relay = start_relay()
    health = (await relay.http("GET", "/health")).json()
    assert (health["status"], health["ready"], health["draining"], health["store"]) == ("ok", True, False, "ok")
    assert len(health["beat_ages_ms"]) == health["shards"] == 2
    assert max(health["beat_ages_ms"]) < 5000
    assert (await relay.http("GET", "/livez")).status == 200
    assert (await relay.http("GET", "/readyz")).status == 200


async def test_a_port_in_use_is_a_clear_error_only_where_it_was_asked_for(start_relay):
    _, port = measured(start_relay)
    second = start_relay("--metrics-addr", f"127.0.0.1:{port}", spawn_only=True)
    assert second.wait() == 5
    assert f"127.0.0.1:{port}" in second.log() and "--metrics-addr" in second.log()


async def test_a_draining_relay_lives_and_is_not_ready(start_relay):
    relay, port = measured(start_relay, "--drain-window", "3s", *GENEROUS)
    async with await Client.authed(relay, await relay.token(), "agent"):
        relay.process.send_signal(signal.SIGTERM)
        for _ in range(50):
            ready = await http1.request(port, "GET", "/readyz")
            if ready.status == 503:
                break
            await asyncio.sleep(0.05)
        assert ready.status == 503 and ready.json()["error"]["code"] == "NOT_READY"
        assert (await http1.request(port, "GET", "/livez")).status == 200
        assert (await http1.request(port, "GET", "/health")).json()["status"] == "draining"
    assert relay.wait() == 0


async def test_a_stuck_shard_is_named_on_the_metrics_listener(start_relay):
    relay, port = measured(start_relay)
    with stopped_shard(relay, 1):
        for _ in range(100):
            ready = await http1.request(port, "GET", "/readyz")
            if ready.status == 503:
                break
            await asyncio.sleep(0.1)
        assert ready.json()["error"]["message"] == "shard 1 is stuck"
        assert (await http1.request(port, "GET", "/health")).json()["status"] == "stuck"
        figures = await scrape(port)
        assert figures.get("coralmux_ready") == 0
        assert figures.get("coralmux_beat_age_seconds", thread="shard-1") > 5
        assert figures.get("coralmux_beat_age_seconds", thread="shard-0") < 5
    await scrape_until(port, lambda figures: figures.get("coralmux_ready") == 1)
