"""PROTOCOL.md, "Notifications": who is woken, when, by what, and what becomes of it."""

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import pathlib
import queue
import socket
import sqlite3
import threading
import time

import pytest

from devices import bound
from push_service import HANG, PLAINTEXT, PushService
from relay import Relay

CONTACT = "mailto:ops@relay.example"
TEXT = "Something is there"
SHOWN = {
    "web_push": 8030,
    "notification": {"title": "CoralMux", "body": TEXT, "navigate": "https://relay.example/", "tag": "coralmux"},
}
HOOK_SECRET = "0123456789abcdef"
KINDS = ["webpush", "unifiedpush"]


@contextlib.asynccontextmanager
async def woken(directory, *flags, contact=CONTACT, hosts=None):
    """A relay that wakes devices, a push service that it trusts, and a token with its agent."""
    async with PushService(directory / "push") as service:
        given = ("--push-contact", contact) if contact else ()
        hosts = ("--push-hosts", hosts or service.host)
        relay = Relay(directory, *given, *hosts, "--push-text", TEXT, *flags, env=service.environment)
        relay.start()
        try:
            async with bound(relay) as there:
                yield service, there
        finally:
            if relay.running():
                relay.kill()


async def subscribed(service, home, kind="webpush", path=None):
    """A device that can be woken, and how."""
    device = await home.device()
    subscription = service.subscribe(path)
    await device.order("relay.push", subscription.payload(kind))
    return device, subscription


async def skip_to(agent, kind, **holds):
    """The agent's next message of that type with these fields, behind whatever it hears of devices."""
    while True:
        message = await agent.receive()
        if message["type"] == kind and message["payload"].items() >= holds.items():
            return
        assert message["type"] == "relay.device", message


async def leave(home, device):
    await device.ws.close()
    await skip_to(home.agent, "relay.device", device=device.key.id, online=False)


async def keep(home, device, keep="wake", text="an answer that is nobody's business"):
    """The agent sends something that is to be kept, and it is."""
    ref = await home.agent.send("chat.done", {"full_text": text}, device=device.key.id, keep=keep)
    await skip_to(home.agent, "relay.kept", ref=ref)


async def state(home, device):
    """The state that the device is told when it comes again."""
    async with await home.join(device.key) as again:
        return again.ext["push"]["state"]


async def until(condition, timeout=10):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


def stored(home):
    """The states of subscriptions in the store."""
    with contextlib.closing(sqlite3.connect(home.relay.db)) as store:
        return [row[0] for row in store.execute("SELECT state FROM push")]


async def test_a_device_is_woken_once_while_it_is_away_and_again_after_it_was_there(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        await home.agent.send("chat.done", {"full_text": "hello"}, device=device.key.id, keep="wake")
        await device.expect("chat.done")
        await service.none()
        await leave(home, device)
        await keep(home, device, "quiet")
        await service.none()
        await keep(home, device)
        push = await service.next()
        assert json.loads(subscription.open(push)) == SHOWN
        await keep(home, device)
        await service.none()
        device = await home.join(device.key)
        await device.ws.close()
        await asyncio.sleep(0.1)
        await keep(home, device)
        assert json.loads(subscription.open(await service.next())) == SHOWN


async def test_a_device_that_sleeps_or_does_not_acknowledge_is_woken_and_one_that_is_awake_is_not(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, _ = await subscribed(service, home)
        for how in ("sleep", "park"):
            if how == "sleep":
                await device.send("relay.sleep", {})
                await skip_to(home.agent, "relay.device", device=device.key.id, online=False)
            else:
                await home.agent.order("relay.park", {"device": device.key.id})
            await keep(home, device)
            await service.next()
            await keep(home, device)
            await service.none()
            await device.send("relay.awake", {})
            for _ in range(2):
                await device.expect("chat.done")
            page = await device.expect("relay.mail")
            await device.send("relay.mail.ack", {"upto": page["upto"]})
            await skip_to(home.agent, "relay.device", device=device.key.id, online=True)
            await home.agent.send("chat.done", {"full_text": "x"}, device=device.key.id, keep="wake")
            await device.expect("chat.done")
            await service.none()


async def test_what_is_sent_is_the_same_for_all_but_for_salt_and_key_and_is_signed(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home, path="/push/one")
        other, _ = await subscribed(service, home, path="/push/two")
        heads, bodies = [], []
        for which, text in (("one", "short"), ("one", "l" * 10_000), ("two", "another one")):
            one = device if which == "one" else other
            await one.ws.close()
            await asyncio.sleep(0.1)
            await keep(home, one, text=text)
            push = await service.next()
            raw = push.raw.replace(push.path.encode(), b"/push")
            for secret in (home.token, device.key.text, device.key.id, other.key.id, home.agent.key.text, text):
                assert secret.encode() not in push.raw
            heads.append(raw[: -len(push.body)])
            bodies.append(push.body)
            assert push.path == f"/push/{which}"
            if which == "one":
                assert json.loads(subscription.open(push)) == SHOWN
                device = await home.join(device.key)
        assert len(set(heads)) == 1
        assert {len(body) for body in bodies} == {16 + 4 + 1 + 65 + PLAINTEXT + 16}
        assert len(set(bodies)) == 3
        headers = push.headers
        expected = {"ttl": "86400", "urgency": "high", "topic": "cm", "content-encoding": "aes128gcm"}
        assert {name: headers[name] for name in expected} == expected
        claims, key = push.vapid()
        assert claims["aud"] == service.url and claims["sub"] == CONTACT
        assert key == (await home.join(device.key)).ext["push"]["vapid"]


@pytest.mark.parametrize(
    "answer, told",
    [(404, "gone"), (410, "gone"), (400, "refused"), (401, "refused"), (403, "refused"), (413, "refused")],
)
async def test_an_answer_for_good_ends_the_subscription_and_the_device_is_told(tmp_path, answer, told):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        service.answer(subscription, answer)
        await leave(home, device)
        await keep(home, device)
        await service.next()
        await until(lambda: stored(home) == [told])
        health = home.relay.health()["push"]
        assert str(answer) in health if told == "refused" else health == "ok"
        again = await home.join(device.key)
        assert again.ext["push"]["state"] == told
        subscription = service.subscribe()
        ref = await again.send("relay.push", subscription.payload())
        # Behind what was kept for it.
        while (message := await again.receive())["type"] != "relay.ok":
            assert message["type"] in ("chat.done", "relay.mail"), message
        assert message["payload"] == {"ref": ref}
        await again.ws.close()
        await asyncio.sleep(0.1)
        await keep(home, device)
        subscription.open(await service.next())
        assert await state(home, device) == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        (429, {"Retry-After": "1"}, b""),
        (500, {"Retry-After": "1"}, b""),
        (307, {"Location": "https://localhost:1/elsewhere", "Retry-After": "1"}, b""),
        (503, {"Retry-After": "1"}, bytes(10 << 20)),
    ],
    ids=["429", "500", "redirect", "10 MB"],
)
async def test_what_fails_is_sent_once_more_and_then_left(tmp_path, answer):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        service.answer(subscription, answer, answer)
        await leave(home, device)
        await keep(home, device)
        first, second = await service.next(), await service.next()
        assert second.path == first.path and second.at - first.at > 0.9
        await service.none(1.5)
        assert stored(home) == ["ok"]


async def test_a_service_that_hangs_does_not_hold_up_others_nor_keeps_a_request_for_long(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        other, _ = await subscribed(service, home)
        service.answer(subscription, HANG)
        await leave(home, device)
        await leave(home, other)
        await keep(home, device)
        await service.next()
        await keep(home, other)
        await service.next()
        assert service.connections == 2
        await until(lambda: service.hung == 0, 20)
        assert stored(home) == ["ok", "ok"]


async def test_an_answer_of_ten_megabytes_is_not_read(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        service.answer(subscription, (201, {}, bytes(10 << 20)))
        await leave(home, device)
        await keep(home, device)
        await service.next()
        await asyncio.sleep(0.5)
        assert await state(home, device) == "ok"


async def test_endpoints_that_lead_elsewhere_are_refused_and_nothing_is_connected_to(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with woken(tmp_path, hosts="*.example") as (service, home):
            device = await home.device()
            subscription = service.subscribe()
            for url in (
                "https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest", "https://[::1]/",
                "https://[fc00::1]/", "https://[::ffff:10.0.0.1]/", "https://100.64.0.1/", "https://push.example:22/",
                f"https://localhost:{port}/", "https://push.elsewhere/", "https://localhost/", "https://8.8.8.8/",
            ):  # fmt: skip
                error = await device.order_fails("PUSH_REFUSED", "relay.push", subscription.payload(endpoint=url))
                assert error["message"], url
            for url in (
                f"http://push.example:{port}/", "http://push.example/", "https://user@push.example/", "https://push.example/#a",
                "https://push.example/" + "x" * 1000, "ftp://push.example/", "push.example", "",
            ):  # fmt: skip
                await device.order_fails("INVALID_MESSAGE", "relay.push", subscription.payload(endpoint=url))
            assert stored(home) == []
            with pytest.raises(BlockingIOError):
                listener.accept()


async def test_subscriptions_are_checked_replaced_and_taken_back(tmp_path):
    async with woken(tmp_path) as (service, home):
        device = await home.device()
        subscription = service.subscribe()
        off_curve = subscription.payload()["p256dh"][:-4] + "AAAA"
        await device.order_fails("PUSH_REFUSED", "relay.push", subscription.payload(p256dh=off_curve))
        await device.order_fails("PUSH_REFUSED", "relay.push", {"kind": "hook", "handle": "apns:1"})
        await device.order_fails("PUSH_REFUSED", "relay.push", {"kind": "sms"})
        for bad in ({}, {"kind": 7}, subscription.payload(auth="AAAA"), subscription.payload(origin=None)):
            await device.order_fails("INVALID_MESSAGE", "relay.push", bad)
        await home.agent.order_fails("INVALID_MESSAGE", "relay.push", subscription.payload())
        await device.order("relay.push", subscription.payload())
        await device.order("relay.push", service.subscribe().payload("unifiedpush", origin=None))
        assert stored(home) == ["ok"]
        await device.order("relay.push", {"kind": None})
        assert stored(home) == []
        await leave(home, device)
        await keep(home, device)
        await service.none()
        assert await state(home, device) == "none"


async def test_a_pending_device_is_offered_nothing_and_a_revoked_one_is_not_woken(tmp_path):
    async with woken(tmp_path) as (service, home):
        pending = await home.pending()
        assert pending.ext["push"]["state"] == "none" and pending.ext["push"]["kinds"] == KINDS
        await pending.order_fails("INVALID_MESSAGE", "relay.push", service.subscribe().payload())
        device, subscription = await subscribed(service, home)
        assert device.admitted["push"] == device.ext["push"] == pending.ext["push"]
        await leave(home, device)
        await home.agent.order("relay.revoke", {"device": device.key.id})
        assert stored(home) == []
        await home.agent.send("chat.done", {}, device=device.key.id, keep="wake")
        await home.agent.expect_error("DEVICE_UNKNOWN")
        await service.none()
        assert subscription.endpoint.encode() not in home.relay.db.read_bytes()


async def test_subscriptions_and_the_key_outlast_a_restart(tmp_path):
    async with woken(tmp_path) as (service, home):
        device, subscription = await subscribed(service, home)
        key = device.key
        async with await home.join(key) as again:
            vapid = again.ext["push"]["vapid"]
        home.relay.stop()
        home.relay.start()
        async with bound(home.relay, token=home.token, key=home.agent.key) as later:
            await keep(later, device)
            push = await service.next()
            assert json.loads(subscription.open(push)) == SHOWN and push.vapid()[1] == vapid
            assert (await later.join(key)).ext["push"] == {"vapid": vapid, "kinds": KINDS, "state": "ok"}


async def test_the_hook_gets_signed_requests_and_its_410_ends_the_subscription(tmp_path):
    async with PushService(tmp_path / "hook", with_tls=False) as gateway:
        flags = ("--push-hook", f"{gateway.url}/wake", "--push-hook-secret", HOOK_SECRET)
        async with woken(tmp_path, *flags, contact=None) as (service, home):
            device = await home.device()
            assert device.ext["push"] == {"kinds": ["unifiedpush", "hook"], "state": "none"}
            await device.order_fails("PUSH_REFUSED", "relay.push", service.subscribe().payload())
            await device.order("relay.push", {"kind": "hook", "handle": "apns:0123"})
            await leave(home, device)
            gateway.answers["/wake"] = [410]
            await keep(home, device)
            push = await gateway.next()
            assert json.loads(push.body) == {"v": 1, "handle": "apns:0123", "ttl": 86400}
            signed = dict(part.split("=", 1) for part in push.headers["x-coralmux-signature"].split(","))
            right = hmac.new(HOOK_SECRET.encode(), f"{signed['t']}.".encode() + push.body, hashlib.sha256).hexdigest()
            assert signed["v1"] == right
            await until(lambda: stored(home) == ["gone"])
            again = await home.join(device.key)
            assert again.ext["push"] == {"kinds": ["unifiedpush", "hook"], "state": "gone"}
            assert "--push-contact" in home.relay.health()["push"]


async def test_with_push_off_there_is_nothing_of_it(tmp_path):
    relay = Relay(tmp_path, "--push", "off").start()
    try:
        async with bound(relay) as home:
            device = await home.device()
            error = await device.order_fails("PUSH_REFUSED", "relay.push", {"kind": None})
            assert "no notifications" in error["message"]
            assert "push" not in (await home.join(device.key)).ext
            assert "push" not in relay.health()
            with contextlib.closing(sqlite3.connect(relay.db)) as store:
                assert store.execute("SELECT count(*) FROM secret").fetchone() == (0,)
    finally:
        relay.kill()


async def test_the_gateway_of_the_documentation_takes_what_the_relay_signs_and_nothing_else(tmp_path, monkeypatch):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "operations" / "push.md").read_text()
    monkeypatch.setenv("HOOK_SECRET", HOOK_SECRET)
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "log_message", lambda *_: None)
    gateway = {"__name__": "gateway"}
    exec(text.split("```python\n")[1].split("```")[0], gateway)
    woken_handles = queue.SimpleQueue()
    gateway["wake"] = lambda handle: woken_handles.put(handle) or True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), gateway["Gateway"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    try:
        flags = ("--push-hook", f"http://127.0.0.1:{port}/wake", "--push-hook-secret", HOOK_SECRET)
        async with woken(tmp_path, *flags) as (_, home):
            device = await home.device()
            await device.order("relay.push", {"kind": "hook", "handle": "apns:0123"})
            await leave(home, device)
            await keep(home, device)
            assert await asyncio.to_thread(woken_handles.get, timeout=10) == "apns:0123"
        forged = http.client.HTTPConnection("127.0.0.1", port)
        forged.request("POST", "/wake", b'{"handle":"x"}', {"X-CoralMux-Signature": f"t={int(time.time())},v1={'0' * 64}"})
        assert forged.getresponse().status == 401 and woken_handles.empty()
    finally:
        server.shutdown()
