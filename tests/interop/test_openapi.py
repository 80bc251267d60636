"""The OpenAPI document against a real relay: generated requests by schemathesis, and each documented response for real."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import jsonschema_rs

import http1
from client import Client
from devices import bound
from metrics import measured
from relay import ADMIN_KEY, GENEROUS, ROOT

DOCUMENT = ROOT / "src" / "api" / "openapi.json"
CONFIG = Path(__file__).with_name("schemathesis.toml")
# The same requests each time, so that what fails here has to do with what changed; any other number asks others.
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
UNKNOWN = "0123456789abcdef"
METHODS = ("get", "put", "post", "patch", "delete")


def test_generated_requests_are_answered_as_the_document_says(start_relay):
    relay = start_relay(*GENEROUS)
    # Whether what the schema allows is taken is not asked: a time in the past fits it and is refused. Nor what becomes of wrong
    # keys: after a few nothing else is answered.
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    command += ["run", f"http://127.0.0.1:{relay.port}/api/v1/openapi.json", "--seed", SEED]
    command += ["--header", f"X-Admin-Key: {ADMIN_KEY}", "--exclude-checks", "positive_data_acceptance,ignored_auth"]
    # It would end the relay under test.
    command += ["--exclude-operation-id", "drain"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--generation-database", "none"]
    done = subprocess.run([*command, "--no-color"], capture_output=True, text=True, timeout=180, cwd=relay.directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout, done.stdout


class Check:
    """Calls, and notes which documented responses were seen and fitted."""

    def __init__(self):
        self.document = json.loads(DOCUMENT.read_text())
        self.seen = set()

    def operation(self, name):
        for path, methods in self.document["paths"].items():
            for method in METHODS:
                if methods.get(method, {}).get("operationId") == name:
                    return path, method, methods[method]
        raise AssertionError(f"no operation {name}")

    def documented(self):
        return {
            (operation["operationId"], status)
            for methods in self.document["paths"].values()
            for method, operation in methods.items()
            if method in METHODS
            for status in operation["responses"]
        }

    async def call(self, relay, name, status, body=None, *, admin=True, query="", port=None, **values):
        path, method, operation = self.operation(name)
        headers = [("X-Admin-Key", ADMIN_KEY)] if admin else []
        target = path.format(**values) + query
        answer = await http1.request(port or relay.port, method.upper(), target, headers=headers, body=body)
        assert answer.status == status, (name, answer.status, answer.body)
        self.fits(operation["responses"][str(status)], answer)
        self.seen.add((name, str(status)))
        return answer

    def fits(self, response, answer):
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        for header, described in response.get("headers", {}).items():
            assert header.lower() in answer.headers or not described["required"], header
        if "content" not in response:
            assert answer.body == b""
            return
        ((kind, content),) = response["content"].items()
        assert answer.headers["content-type"].startswith(kind)
        body = json.loads(answer.body) if kind == "application/json" else answer.body.decode()
        schema = content["schema"] | {"components": self.document["components"]}
        jsonschema_rs.validator_for(schema).validate(body)


async def use_all(check, relay):
    """Whatever goes well, and whatever the client does wrong."""
    for name in ("health", "live", "ready", "openapi"):
        await check.call(relay, name, 200)
    assert (await check.call(relay, "openapi", 200)).json() == check.document
    full = {"label": "kitchen", "expires_in_sec": 3600, "limits": {"phone_per_minute": 7, "daily_quota_bytes": None}}
    made = (await check.call(relay, "createToken", 201, full)).json()
    token, name = made["token"], made["id"]
    async with await Client.authed(relay, token, "agent"):
        await check.call(relay, "presence", 200, admin=False, token=token)
        await check.call(relay, "showToken", 200, id=name)
        await check.call(relay, "listTokens", 200)
        await check.call(relay, "listSessions", 200)
    await check.call(relay, "devicesOfToken", 200, id=name)
    await check.call(relay, "changeToken", 200, {"label": None, "expires_at": "2099-01-01T00:00:00Z"}, id=name)
    async with bound(relay, token=token) as home:
        device = (await home.device("desk")).key.id
        view = (await check.call(relay, "devicesOfToken", 200, id=name)).json()
        assert [one["device"] for one in view["devices"]] == [device]
        await check.call(relay, "showToken", 200, id=name)
        assert (await check.call(relay, "mailOfToken", 200, id=name)).json()["messages"] == 0
        await check.call(relay, "emptyMailOfToken", 204, id=name)
        await wait_for(relay, home, device)
        view = (await check.call(relay, "mailOfToken", 200, id=name)).json()
        assert [one["receiver"] for one in view["receivers"]] == [device]
        assert (await check.call(relay, "mail", 200)).json() == view
        await check.call(relay, "emptyMailOfReceiver", 204, id=name, receiver=device)
        await check.call(relay, "emptyMailOfToken", 204, id=name)
        assert (await check.call(relay, "mailOfToken", 200, id=name)).json()["receivers"] == []
        await check.call(relay, "revokeDevice", 204, id=name, device=device)
        await check.call(relay, "revokeDevice", 404, id=name, device=device)
        await check.call(relay, "changeToken", 200, {"agent_key": None}, id=name)
        await check.call(relay, "changeToken", 200, {"agent_key": home.agent.key.sha256}, id=name)
    await check.call(relay, "usage", 200)
    await check.call(relay, "usageOfToken", 200, id=name)
    await check.call(relay, "backup", 202, {"name": "first.backup"})
    while (await check.call(relay, "backupState", 200)).json()["state"] == "running":
        pass
    await check.call(relay, "backup", 409, {"name": "first.backup"})
    await check.call(relay, "backup", 400, {"name": "relay.db"})
    await check.call(relay, "logLevel", 200)
    await check.call(relay, "setLogLevel", 200, {"level": "info"})
    await check.call(relay, "setLogLevel", 400, {"level": "loud"})
    await check.call(relay, "createToken", 400, {"label": 1})
    await check.call(relay, "sweepTokens", 200)
    await check.call(relay, "sweepTokens", 400, {"unused_days": -1})
    await check.call(relay, "changeToken", 400, {"limits": 1}, id=name)
    for operation in ("listTokens", "listSessions", "usage", "usageOfToken"):
        await check.call(relay, operation, 400, query="?limit=0", id=name)
    for operation, body, values in of_the_admin(token, name):
        await check.call(relay, operation, 401, body, admin=False, **values)
    for operation in ("showToken", "changeToken", "revokeTokenById", "usageOfToken", "devicesOfToken"):
        await check.call(relay, operation, 404, {} if operation == "changeToken" else None, id=UNKNOWN)
    for operation in ("mailOfToken", "emptyMailOfToken", "emptyMailOfReceiver"):
        await check.call(relay, operation, 404, id=UNKNOWN, receiver="agent")
    await check.call(relay, "presence", 404, token="a%2Fb")
    await check.call(relay, "revokeToken", 404, token="a%2Fb")
    large = {"label": "x" * 5000}
    await check.call(relay, "createToken", 413, large)
    await check.call(relay, "changeToken", 413, large, id=name)
    await check.call(relay, "setLogLevel", 413, {"level": "x" * 5000})
    await check.call(relay, "sweepTokens", 413, {"unused_days": "x" * 5000})
    await check.call(relay, "backup", 413, {"name": "x" * 5000})
    other = (await check.call(relay, "createToken", 201)).json()
    await check.call(relay, "revokeToken", 204, token=token)
    await check.call(relay, "revokeTokenById", 204, id=other["id"])


async def wait_for(relay, home, device):
    """A message waits for a device that has left."""
    await home.agent.order("relay.park", {"device": device})
    ref = await home.agent.send("chat.done", device=device, keep="quiet")
    assert await home.agent.expect("relay.kept") == {"ref": ref, "device": device}


def of_the_admin(token, name):
    """Each operation that needs the admin key, with a body and values for its path."""
    return (
        ("createToken", None, {}),
        ("revokeToken", None, {"token": token}),
        ("listTokens", None, {}),
        ("showToken", None, {"id": name}),
        ("changeToken", {}, {"id": name}),
        ("revokeTokenById", None, {"id": name}),
        ("logLevel", None, {}),
        ("setLogLevel", {"level": "info"}, {}),
        ("sweepTokens", None, {}),
        ("listSessions", None, {}),
        ("usage", None, {}),
        ("usageOfToken", None, {"id": name}),
        ("devicesOfToken", None, {"id": name}),
        ("revokeDevice", None, {"id": name, "device": UNKNOWN}),
        ("mail", None, {}),
        ("mailOfToken", None, {"id": name}),
        ("emptyMailOfToken", None, {"id": name}),
        ("emptyMailOfReceiver", None, {"id": name, "receiver": "agent"}),
        ("drain", None, {}),
        ("backup", None, {}),
        ("backupState", None, {}),
    )


async def guess(check, relay):
    """Too many wrong keys: none is looked at any more."""
    wrong = [("X-Admin-Key", "wrong")]
    await asyncio.gather(*(relay.http("GET", "/api/v1/tokens", headers=wrong) for _ in range(20)))
    # All at once: each answer is held back for a while, and after half a minute a key would be looked at again.
    operations = of_the_admin("oc_pair_", UNKNOWN)
    await asyncio.gather(*(check.call(relay, name, 429, body, **values) for name, body, values in operations))


async def test_every_documented_response_is_real(start_relay):
    check = Check()
    relay, port = measured(start_relay, "--register-rate", "1", "--drain-window", "3s")
    await use_all(check, relay)
    await guess(check, start_relay())
    await check.call(relay, "register", 201)
    await check.call(relay, "register", 429)
    await check.call(start_relay("--registration", "off"), "register", 403)

    # The store is another program's for a while.
    made = await relay.pair()
    free = start_relay("--register-rate", "0", db=relay.directory / "other.db")
    for locked, names in ((relay, None), (free, ("register",))):
        other = sqlite3.connect(locked.db, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        if names:
            await check.call(locked, "register", 503)
        else:
            await check.call(locked, "createToken", 503)
            await check.call(locked, "listTokens", 503)
            await check.call(locked, "sweepTokens", 503)
            await check.call(locked, "listSessions", 503)
            await check.call(locked, "usage", 503)
            await check.call(locked, "usageOfToken", 503, id=made["id"])
            await check.call(locked, "devicesOfToken", 503, id=made["id"])
            await check.call(locked, "revokeDevice", 503, id=made["id"], device=UNKNOWN)
            for operation in ("mailOfToken", "emptyMailOfToken", "emptyMailOfReceiver"):
                await check.call(locked, operation, 503, id=made["id"], receiver="agent")
            await check.call(locked, "showToken", 503, id=made["id"])
            await check.call(locked, "changeToken", 503, {}, id=made["id"])
            await check.call(locked, "revokeTokenById", 503, id=made["id"])
            await check.call(locked, "revokeToken", 503, token=made["token"])
        other.execute("ROLLBACK")
        other.close()

    # A directory in the place of the mailbox's file.
    broken = start_relay()
    broken.stop()
    broken.db.with_name("relay.db.mail").mkdir()
    await check.call(broken.start(), "mail", 503)

    draining, port = measured(start_relay, "--drain-window", "3s")
    async with await Client.authed(draining, await draining.token(), "agent"):
        await check.call(draining, "drain", 202)
        for _ in range(100):
            if (await http1.request(port, "GET", "/readyz")).status == 503:
                break
        await check.call(draining, "ready", 503, port=port)
    assert draining.wait() == 0
    assert check.seen == check.documented(), check.documented() ^ check.seen
