"""docs/operations/cluster.md: several relays that share their tokens through NATS."""

import asyncio
import contextlib
import json
import pathlib
import random
import sqlite3
import time

import pytest

from certificates import certificate
from client import Client
from devices import Key, Peer, bound, refusal
from nats import DEBIAN, PROGRAMS, Nats, three_servers
from relay import ADMIN_KEY, GENEROUS, binary, free_port

TIMEOUT = 20


@pytest.fixture(params=sorted(PROGRAMS))
def nats(request, tmp_path):
    nats = Nats(tmp_path, PROGRAMS[request.param]).start()
    yield nats
    nats.kill()


@pytest.fixture
def node(start_relay, nats):
    """Starts relays of the cluster."""
    return lambda *flags, **options: start_relay(*GENEROUS, "--cluster", nats.url, *flags, **options)


async def until(true, relay, timeout=TIMEOUT):
    """Waits until something is true that has to do with a relay."""
    deadline = time.monotonic() + timeout
    while not await true():
        assert time.monotonic() < deadline, relay.log()
        await asyncio.sleep(0.02)


async def is_at(relay, id):
    """Whether a token is in that relay's store."""
    answer = await relay.http("GET", f"/api/v1/tokens/{id}", admin=True)
    assert answer.status in (200, 404), answer.body
    return answer.status == 200


async def comes_to(relay, *ids):
    for id in ids:
        await until(lambda: is_at(relay, id), relay)


async def leaves(relay, *ids):
    async def is_gone(id):
        return not await is_at(relay, id)

    for id in ids:
        await until(lambda: is_gone(id), relay)


async def connected(*relays):
    """Waits until they have NATS."""

    async def is_well(relay):
        return relay.health().get("nats") == "ok"

    for relay in relays:
        await until(lambda: is_well(relay), relay)


async def without(*relays):
    """Waits until they know that NATS is away."""

    async def is_away(relay):
        return relay.health()["status"] == "degraded" and relay.health()["nats"] != "ok"

    for relay in relays:
        await until(lambda: is_away(relay), relay)


async def tokens(relay):
    """All tokens, page by page."""
    found, after = [], ""
    while after is not None:
        page = (await relay.http("GET", f"/api/v1/tokens?limit=7{after}", admin=True)).json()
        found += page["tokens"]
        after = f"&after={page['next']}" if page["next"] else None
    shared = ("id", "label", "created_at", "expires_at", "limits", "agent_key", "devices")
    return [{key: one[key] for key in shared} for one in found]


async def revoke(relay, token):
    return await relay.http("DELETE", f"/api/v1/pair/{token}", admin=True)


@contextlib.asynccontextmanager
async def pair(relay, token):
    async with await Client.authed(relay, token, "agent") as agent, await Client.authed(relay, token, "phone") as phone:
        yield agent, phone


async def exchange(agent, phone):
    """A message passes."""
    sent = await phone.send("chat.send", {"text": "hello"})
    while True:
        message = await agent.receive()
        if message["id"] == sent:
            return


async def test_tokens_are_everywhere_with_what_was_said_of_them_and_in_the_same_order(node):
    a, b = node(), node()
    soon = "2099-01-01T00:00:00Z"
    made = [await a.pair(label="one", limits={"phone_per_minute": 7}), await b.pair(expires_at=soon)]
    made += await asyncio.gather(*(relay.pair(label=f"n{n}") for n in range(10) for relay in (a, b)))
    registered = await b.http("POST", "/api/v1/register")
    assert registered.status == 201
    made.append(registered.json())
    ids = [one["id"] for one in made]
    for relay in (a, b):
        await comes_to(relay, *ids)
    listed = await tokens(a)
    assert listed == await tokens(b)
    assert sorted(one["id"] for one in listed) == sorted(ids)
    for one in made:
        async with pair(a, one["token"]) as ends:
            await exchange(*ends)
        async with pair(b, one["token"]) as ends:
            await exchange(*ends)
    change = {"label": "two", "limits": {"phone_per_minute": 8}}
    answer = await b.http("PATCH", f"/api/v1/tokens/{ids[0]}", change, admin=True)
    assert answer.status == 200, answer.body

    async def is_changed():
        return (await a.http("GET", f"/api/v1/tokens/{ids[0]}", admin=True)).json()["label"] == "two"

    await until(is_changed, a)
    assert await tokens(a) == await tokens(b)


async def test_a_revocation_at_one_relay_closes_at_the_others(node):
    a, b = node(), node()
    made = await a.pair()
    await comes_to(b, made["id"])
    async with pair(b, made["token"]) as ends:
        assert (await revoke(a, made["token"])).status == 204
        for end in ends:
            assert (await end.closed())[0] == 4002
    for relay in (a, b):
        assert await refusal(relay, made["token"], "phone")
        assert not await is_at(relay, made["id"])


async def test_a_token_that_was_made_elsewhere_this_moment_can_be_revoked_here(node):
    a, b = node(), node()
    for _ in range(20):
        made = await a.pair()
        assert (await revoke(b, made["token"])).status == 204
        await leaves(a, made["id"])
        assert not await is_at(b, made["id"])
    assert await tokens(a) == await tokens(b) == []


async def test_a_token_admits_everywhere_from_its_first_moment_on(node):
    a, b = node(), node()
    for _ in range(50):
        made = await a.pair()
        # What is sent behind the first message waits with it.
        async with await Client.open(b) as agent:
            await agent.send("auth", {"token": made["token"], "role": "agent"})
            await agent.send("ping")
            assert (await agent.receive())["type"] == "auth.ok"
            await agent.expect("pong")


async def test_a_device_is_let_in_everywhere_from_its_first_moment_on(node):
    a, b = node(), node()
    async with bound(a) as home:
        for _ in range(5):
            device = await home.device()
            async with await Peer.join(b, home.token, "phone", device.key):
                pass


async def test_strangers_are_refused_and_told_to_come_back_while_nobody_can_know(node, nats):
    a = node("--max-unauthenticated-per-address", "0")
    assert "unknown" in await refusal(a, "oc_pair_" + "0" * 32, "phone")
    refused = await asyncio.gather(*(refusal(a, f"oc_pair_{n:032x}", "agent") for n in range(60)))
    assert all("unknown" in one for one in refused), refused
    nats.kill()
    await without(a)
    assert (await refusal(a, "oc_pair_" + "0" * 32, "phone"))[0] == 1013


async def test_whom_a_token_is_bound_to_is_known_everywhere(node):
    a, b = node(), node()
    async with bound(a) as home:
        device = await home.device(label="desk")
        id = (await tokens(a))[0]["id"]

        async def knows():
            answer = await b.http("GET", f"/api/v1/tokens/{id}/devices", admin=True)
            return answer.status == 200 and [one["device"] for one in answer.json()["devices"]] == [device.key.id]

        await until(knows, b)
        assert await refusal(b, home.token, "agent", Key())
        async with await Peer.join(b, home.token, "phone", device.key):
            pass
        answer = await b.http("DELETE", f"/api/v1/tokens/{id}/devices/{device.key.id}", admin=True)
        assert answer.status == 204, answer.body
        assert (await device.closed())[0] == 4002
        assert await refusal(a, home.token, "phone", device.key)


async def test_while_nats_is_away_everything_goes_on_but_making_and_changing_tokens(node, nats):
    a, b = node(), node()
    made, other = await a.pair(), await a.pair()
    await comes_to(b, made["id"], other["id"])
    async with pair(b, made["token"]) as ends:
        nats.kill()
        await without(a, b)
        await exchange(*ends)
        async with pair(a, other["token"]) as there:
            await exchange(*there)
        for relay in (a, b):
            answer = await relay.http("POST", "/api/v1/pair", admin=True)
            assert answer.status == 503 and answer.json()["error"]["code"] == "STORE_UNAVAILABLE", answer.body
            answer = await relay.http("POST", "/api/v1/register")
            assert answer.status == 503, answer.body
        change = {"label": "x"}
        assert (await a.http("PATCH", f"/api/v1/tokens/{made['id']}", change, admin=True)).status == 503
        # Shut out here at once, and everywhere when it is said again.
        answer = await revoke(b, made["token"])
        assert answer.status == 503 and b"until the relay restarts" in answer.body, answer.body
        assert (await ends[0].closed())[0] == 4002
        assert await refusal(b, made["token"], "phone")
        nats.start()
        await connected(a, b)
    assert (await revoke(b, made["token"])).status == 204
    await leaves(a, made["id"])
    fresh = await b.pair()
    await comes_to(a, fresh["id"])
    assert a.health()["status"] == "ok"


async def test_a_nats_that_answers_nothing_holds_nobody_up_for_long(node, nats):
    a = node()
    made = await a.pair()
    nats.pause()
    try:
        begun = time.monotonic()
        answer = await a.http("POST", "/api/v1/pair", admin=True)
        assert answer.status == 503, answer.body
        assert time.monotonic() - begun < 10
        async with pair(a, made["token"]) as ends:
            await exchange(*ends)
        await without(a)
        begun = time.monotonic()
        for _ in range(20):
            assert (await a.http("POST", "/api/v1/pair", admin=True)).status == 503
        assert time.monotonic() - begun < 10
    finally:
        nats.resume()
    await connected(a)
    await a.pair()


async def test_a_relay_starts_without_nats_from_what_is_on_its_disk(node, nats):
    a, b = node(), node()
    made = await a.pair()
    await comes_to(b, made["id"])
    b.kill()
    nats.kill()
    gone = await a.http("DELETE", f"/api/v1/pair/{made['token']}", admin=True)
    assert gone.status == 503
    b.start()
    assert b.health()["nats"] != "ok"
    async with pair(b, made["token"]) as ends:
        await exchange(*ends)
    nats.start()
    await connected(a, b)
    assert (await revoke(a, made["token"])).status == 204
    await leaves(b, made["id"])


async def test_what_nats_has_lost_is_written_there_again(node, nats):
    a, b = node(), node()
    kept, revoked = [await a.pair() for _ in range(5)], await b.pair()
    assert (await revoke(b, revoked["token"])).status == 204
    for relay in (a, b):
        await comes_to(relay, *(one["id"] for one in kept))
    await leaves(a, revoked["id"])
    before = await tokens(a)
    nats.lose_files()
    nats.start()
    await connected(a, b)
    c = node()
    await comes_to(c, *(one["id"] for one in kept))
    assert not await is_at(c, revoked["id"])
    assert before == await tokens(a) == await tokens(b) == await tokens(c)
    for relay in (a, b, c):
        async with pair(relay, kept[0]["token"]) as ends:
            await exchange(*ends)
    fresh = await c.pair()
    for relay in (a, b):
        await comes_to(relay, fresh["id"])
        assert len(await tokens(relay)) == 6


async def test_an_old_backup_of_nats_brings_nothing_back_and_takes_nothing_away(node, nats):
    a, b = node(), node()
    old, revoked, changed = [await a.pair(label="old") for _ in range(3)]
    for relay in (a, b):
        await comes_to(relay, old["id"], revoked["id"], changed["id"])
    nats.back_up()
    await connected(a, b)
    assert (await revoke(a, revoked["token"])).status == 204
    answer = await b.http("PATCH", f"/api/v1/tokens/{changed['id']}", {"label": "new"}, admin=True)
    assert answer.status == 200, answer.body
    late = [await b.pair(label="late") for _ in range(3)]
    await leaves(b, revoked["id"])
    await comes_to(a, *(one["id"] for one in late))
    nats.restore()
    await connected(a, b)
    c = node()
    await comes_to(c, old["id"], *(one["id"] for one in late))
    await leaves(c, revoked["id"])
    for relay in (a, b, c):
        assert not await is_at(relay, revoked["id"])
        labels = {one["id"]: one["label"] for one in await tokens(relay)}
        assert labels == {old["id"]: "old", changed["id"]: "new"} | {one["id"]: "late" for one in late}
    assert await refusal(c, revoked["token"], "phone")


async def test_a_store_with_tokens_of_its_own_begins_a_cluster_and_joins_none(node, nats, start_relay):
    alone = start_relay(*GENEROUS)
    made = [await alone.pair() for _ in range(3)]
    async with pair(alone, made[0]["token"]) as ends:
        await exchange(*ends)
    alone.stop()
    first = node(directory=alone.directory)
    second = node()
    await comes_to(second, *(one["id"] for one in made))
    assert await tokens(first) == await tokens(second)

    foreign = start_relay(*GENEROUS)
    await foreign.pair()
    foreign.stop()
    third = node(directory=foreign.directory, spawn_only=True)
    assert third.wait() == 4, third.log()
    assert "it has tokens of its own, and the cluster" in third.log()


async def test_the_store_of_another_cluster_is_refused(node, nats, start_relay, tmp_path):
    a = node()
    await a.pair()
    a.stop()
    other = Nats(tmp_path / "other").start()
    try:
        start_relay("--cluster", other.url)
        a.command[a.command.index(nats.url)] = other.url
        assert a.spawn().wait() == 4, a.log()
        assert "the store is part of cluster" in a.log()
    finally:
        other.kill()


async def test_a_store_that_leaves_is_a_whole_one(node, nats, start_relay):
    a, b = node(), node()
    made = await a.pair()
    await comes_to(b, made["id"])
    b.stop()
    alone = start_relay(*GENEROUS, directory=b.directory)
    assert "without --cluster, tokens that are made" in alone.log()
    assert "nats" not in alone.health()
    async with pair(alone, made["token"]) as ends:
        await exchange(*ends)
    own = await alone.pair()
    alone.stop()
    b.start()
    await comes_to(a, own["id"])


@pytest.mark.parametrize("flags", [(), ("--cluster-replicas", "3")])
async def test_a_relay_that_has_never_seen_nats_does_not_start_without(start_relay, tmp_path, flags):
    nats = Nats(tmp_path)
    relay = start_relay("--cluster", nats.url, *flags, spawn_only=True)
    assert relay.wait(40) == 1
    assert f"NATS cannot be reached at {nats.url}" in relay.log() and "needs NATS to start" in relay.log()


async def test_a_nats_without_jetstream_is_refused(start_relay, tmp_path):
    nats = Nats(tmp_path, jetstream=False).start()
    try:
        relay = start_relay("--cluster", nats.url, spawn_only=True)
        assert relay.wait() == 2
        assert "has JetStream switched off: start it with -js" in relay.log()
    finally:
        nats.kill()


async def test_tokens_outlast_a_server_of_a_nats_cluster(start_relay, tmp_path):
    servers = three_servers(tmp_path)
    try:
        flags = [flag for server in servers for flag in ("--cluster", server.url)]
        a, b = [start_relay(*GENEROUS, *flags, "--cluster-replicas", "3") for _ in range(2)]
        made = [await a.pair()]
        for server in servers:
            server.kill()

            async def is_made():
                answer = await a.http("POST", "/api/v1/pair", admin=True)
                assert answer.status in (201, 503), answer.body
                if answer.status == 201:
                    made.append(answer.json())
                return answer.status == 201

            # Two elections, one after the other: the servers', and the bucket's.
            await until(is_made, a, 60)
            await comes_to(b, made[-1]["id"])
            async with pair(b, made[-1]["token"]) as ends:
                await exchange(*ends)
            server.start()
            await connected(a, b)
        await comes_to(b, *(one["id"] for one in made))
        # What was written without an answer is a token as well: nobody knows its text.
        assert await tokens(a) == await tokens(b)
        assert {one["id"] for one in made} <= {one["id"] for one in await tokens(a)}
    finally:
        for server in servers:
            server.kill()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
async def test_nats_is_reached_by_tls_and_shown_a_certificate(start_relay, tmp_path, program):
    cert, key = map(str, certificate(tmp_path, "nats", "IP:127.0.0.1"))
    nats = Nats(tmp_path, PROGRAMS[program], flags=("--tlsverify", "--tlscert", cert, "--tlskey", key, "--tlscacert", cert))
    nats.scheme = "tls"
    nats.start()
    try:
        shown = ("--nats-cert", cert, "--nats-key", key)
        a = start_relay(*GENEROUS, "--cluster", nats.url, "--nats-ca", cert, *shown)
        made = await a.pair()
        async with pair(a, made["token"]) as ends:
            await exchange(*ends)
        for flags in (shown, ("--nats-ca", cert)):
            stranger = start_relay("--cluster", nats.url, *flags, spawn_only=True)
            assert stranger.wait(40) == 1
            assert f"NATS cannot be reached at {nats.url}" in stranger.log()
    finally:
        nats.kill()


@pytest.mark.skipif(not DEBIAN, reason="needs the nats-server of Debian 12")
async def test_versions_that_let_two_writers_win_are_refused_by_name(start_relay, tmp_path):
    nats = Nats(tmp_path, DEBIAN).start()
    try:
        relay = start_relay("--cluster", nats.url, "--cluster-replicas", "3", spawn_only=True)
        assert relay.wait() == 2
        assert "nats-server 2.9." in relay.log() and "run 2.10.23 or newer" in relay.log()
    finally:
        nats.kill()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--cluster", "127.0.0.1:4222"), "expected a NATS server, such as nats://127.0.0.1:4222"),
        (("--cluster", "nats://user:word@127.0.0.1"), "without a user or password"),
        (("--cluster", "nats://192.0.2.1"), "nats://192.0.2.1:4222 would be reached without TLS"),
        (("--cluster", "nats://127.0.0.1", "--cluster-replicas", "2"), "expected 1, 3 or 5"),
        (("--cluster", "nats://127.0.0.1", "--cluster-name", "A b"), "expected a name of 1 to 32 characters"),
        (("--nats-cert", "a.pem"), "--nats-cert and --nats-key go together"),
        (("--cluster", "nats://127.0.0.1", "--nats-creds", "/nowhere"), "--nats-creds: /nowhere: "),
    ],
)
def test_what_cannot_be_meant_is_refused(start_relay, flags, says):
    relay = start_relay(*flags, spawn_only=True)
    assert relay.wait() == 2, relay.log()
    assert says in relay.log(), relay.log()


def test_without_an_admin_key_of_the_operator_there_is_no_cluster(start_relay):
    relay = start_relay("--cluster", "nats://127.0.0.1", admin_key=None, spawn_only=True)
    assert relay.wait() == 2, relay.log()
    assert "--cluster needs --admin-key" in relay.log()


async def test_what_was_answered_holds_whatever_is_killed(node, nats):
    """Tokens are made and revoked while relays and NATS are killed, one after the other."""
    relays = [node(), node()]
    made, revoked, uncertain = {}, set(), set()
    is_over = asyncio.Event()

    async def client(number):
        numbers = random.Random(number)
        while not is_over.is_set():
            relay = numbers.choice(relays)
            await asyncio.sleep(0.01)
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.IncompleteReadError, AssertionError):
                answer = await relay.http("POST", "/api/v1/pair", admin=True)
                if answer.status != 201:
                    continue
                token = answer.json()["token"]
                made[token] = answer.json()["id"]
                if numbers.random() < 0.4:
                    uncertain.add(token)
                    if (await revoke(numbers.choice(relays), token)).status == 204:
                        revoked.add(token)

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    chance = random.Random(7)
    for _ in range(8):
        await asyncio.sleep(chance.uniform(0.2, 1.2))
        victim = chance.choice([*relays, nats])
        victim.kill()
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await asyncio.to_thread(victim.start)
    await asyncio.sleep(1)
    is_over.set()
    await asyncio.gather(*clients)
    await connected(*relays)
    marker = [(await relay.pair())["id"] for relay in relays]
    for relay in relays:
        await comes_to(relay, *marker)
        there = {one["id"] for one in await tokens(relay)}
        lost = [id for token, id in made.items() if token not in uncertain and id not in there]
        assert not lost, lost
        back = [made[token] for token in revoked if made[token] in there]
        assert not back, back
    assert len(made) > 50 and revoked, (len(made), len(revoked))
    assert await tokens(relays[0]) == await tokens(relays[1])


async def doctor(*flags):
    """What the doctor says of NATS."""
    program = (binary(), "doctor", "--json", "--admin-key", ADMIN_KEY, "--addr", f"127.0.0.1:{free_port()}", *flags)
    done = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    findings = json.loads((await done.communicate())[0])["findings"]
    return [(one["state"], one["text"]) for one in findings if one["name"] == "NATS"]


async def test_the_doctor_looks_at_nats_and_makes_nothing_there(node, nats):
    flags = ("--cluster", nats.url)
    assert await doctor() == []
    for _ in range(2):
        ((state, text),) = await doctor(*flags)
        assert state == "ok" and "no cluster coralmux yet" in text, text
    a = node()
    await a.pair()
    ((state, text),) = await doctor(*flags)
    assert state == "ok" and text.startswith("nats-server 2.") and "1 tokens and revocations" in text, text
    nats.kill()
    ((state, text),) = await doctor(*flags)
    assert state == "fail" and f"NATS cannot be reached at {nats.url}" in text, text


def threads(relay):
    comms = pathlib.Path(f"/proc/{relay.process.pid}/task").glob("*/comm")
    return {path.read_text().strip() for path in comms}


def test_a_relay_alone_has_neither_a_thread_nor_a_trace_of_it(start_relay, node):
    alone, shared = start_relay(), node()
    assert "cluster" in threads(shared) and "cluster" not in threads(alone)
    tables = sqlite3.connect(alone.db).execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert not {"cluster", "shared"} & {name for (name,) in tables}
    assert "nats" not in alone.health() and shared.health()["nats"] == "ok"
