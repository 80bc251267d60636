"""SIGUSR2 and SIGHUP: the configuration is read again, and no client is disconnected."""

import json
import signal
import sqlite3
import time

import pytest

import raw

DEADLINE = 20


def wait_for(relay, text, times=1):
    deadline = time.monotonic() + DEADLINE
    while relay.log().count(text) < times:
        assert time.monotonic() < deadline, f"waited in vain for {text!r}:\n{relay.log()}"
        time.sleep(0.01)


class Reloaded:
    """A relay with a configuration file that the test writes."""

    def __init__(self, start_relay, directory, text, **options):
        self.file = directory / "relay.toml"
        self.file.write_text(text)
        self.relay = start_relay("--config", self.file, **options)
        self.times = 0

    def reload(self, text=None, how=signal.SIGUSR2):
        if text is not None:
            self.file.write_text(text)
        self.times += 1
        self.relay.process.send_signal(how)
        wait_for(self.relay, "tokens read again", self.times)


@pytest.fixture
def reloaded(start_relay, tmp_path):
    return lambda text, **options: Reloaded(start_relay, tmp_path, text, **options)


async def exchange(phone, agent, count):
    """Sends that many messages; what comes to the agent and what the phone is refused."""
    for number in range(count):
        await phone.send({"type": "chat.send", "id": f"m{number}"})
    await phone.send({"type": "ping"})
    refused = []
    while (message := await phone.receive())["type"] != "pong":
        refused.append(message["payload"]["code"])
    return count - len(refused), refused


@pytest.mark.parametrize("how", [signal.SIGUSR2, signal.SIGHUP])
async def test_limits_change_for_connected_clients_and_nobody_is_dropped(reloaded, how):
    it = reloaded("phone-rate = 3\n")
    token = await it.relay.token()
    async with (
        await raw.RawSocket.authed(it.relay, token, "agent") as agent,
        await raw.RawSocket.authed(it.relay, token, "phone") as phone,
    ):
        assert (await exchange(phone, agent, 5)) == (3, ["RATE_LIMITED"] * 2)
        it.reload("phone-rate = 0\n", how)
        assert (await exchange(phone, agent, 50)) == (50, [])
        it.reload("phone-rate = 0\nmax-message = '1KiB'\n", how)
        await phone.send({"type": "chat.send", "id": "big", "payload": "x" * 2000})
        assert (await phone.receive())["payload"]["code"] == "MESSAGE_TOO_LARGE"
    wait_for(it.relay, "phone-rate")
    wait_for(it.relay, "max-message")


async def test_what_cannot_change_is_named_and_stays(reloaded):
    it = reloaded("")
    it.reload("log-format = 'human'\nmemory-budget = '99MiB'\nregistration = 'off'\nidle-timeout = '50s'\n")
    named = it.relay.lines("take a restart")
    assert [line["settings"] for line in named] == ["memory-budget, log-format"]
    changed = it.relay.lines("configuration read again")
    assert [line["changed"] for line in changed] == ["registration, idle-timeout"]
    assert (await it.relay.http("POST", "/api/v1/register")).status == 403


async def test_a_wrong_file_changes_nothing(reloaded):
    it = reloaded("registration = 'off'\n")
    it.file.write_text("registration = 'on'\nphone-rate = 'many'\n")
    it.relay.process.send_signal(signal.SIGUSR2)
    wait_for(it.relay, "nothing has changed")
    assert "phone-rate" in it.relay.log()
    assert (await it.relay.http("POST", "/api/v1/register")).status == 403
    it.reload("registration = 'on'\n")
    assert (await it.relay.http("POST", "/api/v1/register")).status == 201


async def test_the_log_level_changes(reloaded):
    it = reloaded("")
    await it.relay.token()
    it.reload("log-level = 'debug'\n")
    before = it.relay.log().count('"DEBUG"')
    async with await raw.RawSocket.authed(it.relay, await it.relay.token(), "agent"):
        pass
    wait_for(it.relay, '"DEBUG"', before + 1)


async def test_a_new_admin_key_beside_the_store_holds_after_a_reload(reloaded, tmp_path):
    it = reloaded("", admin_key=None)
    file = it.relay.db.with_name("relay.db.admin-key")
    old = file.read_text().strip()
    file.write_text("the-next-one\n")
    it.relay.admin_key = old
    assert (await it.relay.http("GET", "/api/v1/tokens", admin=True)).status == 200
    it.reload()
    assert (await it.relay.http("GET", "/api/v1/tokens", admin=True)).status == 401
    it.relay.admin_key = "the-next-one"
    assert (await it.relay.http("GET", "/api/v1/tokens", admin=True)).status == 200


async def test_tokens_are_taken_as_another_program_left_them_in_the_store(reloaded):
    it = reloaded("phone-rate = 0\n")
    token, gone = await it.relay.pair(), await it.relay.pair()
    async with (
        await raw.RawSocket.authed(it.relay, token["token"], "agent") as agent,
        await raw.RawSocket.authed(it.relay, token["token"], "phone") as phone,
        await raw.RawSocket.authed(it.relay, gone["token"], "agent") as other,
    ):
        with sqlite3.connect(it.relay.db, timeout=10) as store:
            limits = json.dumps({"phone_per_minute": 2})
            store.execute("UPDATE token SET limits = ? WHERE hex(hash) LIKE ?", (limits, token["id"].upper() + "%"))
            store.execute("DELETE FROM token WHERE hex(hash) LIKE ?", (gone["id"].upper() + "%",))
        store.close()
        it.reload()
        assert (await exchange(phone, agent, 4)) == (2, ["RATE_LIMITED"] * 2)
        assert (await other.closed()).code == 4002
    line = it.relay.lines("tokens read again")[0]
    assert (line["tokens"], line["changed"], line["shut_out"], line["admitted"]) == (1, 1, 1, 0)


async def test_the_service_manager_is_told_of_a_reload(reloaded, manager):
    it = reloaded("", env={"NOTIFY_SOCKET": manager.path})
    manager.until("READY", "1")
    it.reload()
    reloading = manager.until("RELOADING", "1")[-1]
    assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.until("READY", "1")
