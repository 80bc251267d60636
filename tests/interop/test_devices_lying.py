"""Devices whose relay is the attacker (`lying`): what it says is believed by nobody, and what it does opens nothing.

The numbers are those of the acceptance tests of devices.
"""

import asyncio
import json
import random as pseudo
import time

import pytest
from household import Household, Party, asks, request, tells
from lying import LyingRelay

from coralmux import Link, NotDone, Protection, StateError, devices, keyed, v3
from coralmux.crypto import b64url
from coralmux.v3 import agent as v3_agent
from coralmux.v3 import device as v3_device
from coralmux.v3 import enrol, sessions, wire
from coralmux.v3.handshake import ENROL, Handshake

TOKEN = "oc_pair_" + "0123456789abcdef" * 2
SILENT = 0.3  # seconds in which something would have happened


@pytest.fixture
def impatient(monkeypatch):
    """The waits of healing and enrolling are short."""
    for module in (v3_agent, v3_device):
        monkeypatch.setattr(module, "HEAL_INTERVAL", 0.2)
    monkeypatch.setattr(enrol, "SILENCE", 0.4)
    monkeypatch.setattr(keyed, "ENROL_POLL", 0.05)


def is_sealed(message):
    return isinstance(message.get("payload"), dict) and message["payload"].get("enc") is True


def step(message):
    """Which step of an enrolment a message is; 0: one of a session."""
    return message["payload"].get("enrol", 0) if message["type"] == "key_exchange" else None


def to_device(relay, device):
    """What the agent has sent to this device."""
    return [message for who, message in relay.seen if who == "agent" and message.get("device") == device]


def sent_by(relay, who):
    return [message for sender, message in relay.seen if sender == who]


def sids(messages):
    return [message["payload"]["s"] for message in messages if is_sealed(message)]


async def test_devices_enrol_ask_and_hear_what_the_others_ask(tmp_path):
    """26: an answer reaches all, a question shows on the others, who is away hears the end of the answer later."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        question = await asks(phone, home.agent)
        turn = (await tablet.expect("chat.turn", text="a question")).payload
        assert (turn["ref"], turn["from"], turn["role"]) == (question.id, phone.device, "user")
        await tells(home.agent, [phone, tablet])
        assert not phone.of("chat.turn")
        await tablet.__aexit__()
        await home.agent.expect("relay.device", device=tablet.device, online=False)
        for seq in range(3):
            await home.agent.client.send("chat.stream", {"delta": f"{seq} ", "seq": seq + 1})
        await tells(home.agent, [phone], "0 1 2 ")
        tablet = await home.device("tablet")
        await tablet.expect("chat.done", full_text="0 1 2 ")
        assert not tablet.of("chat.stream") and not tablet.of("client.refused")


# ---- Enrolling ----


async def test_a_link_is_worth_one_device_though_the_relay_lets_two_in(tmp_path, impatient):
    """27, 30: the second device gets no answer, asks for another link after three tries, and nothing was sealed for it."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        link = await home.first()
        await home.device("phone", link)
        async with home.party("second", link) as second:
            assert "show a new one" in await second.end()
            assert to_device(relay, second.device) == []
            firsts = [message for message in sent_by(relay, second.device) if step(message) == 1]
            assert len({message["payload"]["noise"] for message in firsts}) == 3
        assert len(home.agent.of("client.joining")) == 1


async def test_links_that_are_expired_foreign_or_too_many_admit_nobody(tmp_path, impatient):
    """27: four links at most are open beside the first; one that is over or that nobody made gets no answer, no hint."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        await home.first()
        links = [await home.agent.client.invite(lifetime=1) for _ in range(4)]
        with pytest.raises(NotDone) as refused:
            await home.agent.client.invite()
        assert refused.value.code == "INVITES_FULL"
        foreign = Link(TOKEN, relay.url, bytes(32), links[0].agent)
        await asyncio.sleep(1.1)
        for name, link in (("expired", links[3]), ("foreign", foreign)):
            async with home.party(name, link) as device:
                assert "show a new one" in await device.end()
                assert to_device(relay, device.device) == []
        await home.agent.client.invite()  # there is room again


async def test_a_recorded_enrolment_enrols_nobody_again(tmp_path):
    """30: replayed as the same device or as another one, whole or in part, also after the agent's restart."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        recorded = [message for message in sent_by(relay, phone.device) if step(message) in (1, 3)]
        assert [step(message) for message in recorded] == [1, 3]
        for restart in (False, True):
            if restart:
                await home.agent.__aexit__()
                await home.start()
                await home.agent.expect("client.connected")
            before = len(to_device(relay, phone.device))
            for message in recorded:
                for device in (phone.device, "0" * 16):
                    await relay.tell("agent", message | {"device": device})
            await asks(phone, home.agent, f"restarted: {restart}")
            await asyncio.sleep(SILENT)
            answers = to_device(relay, phone.device)[before:]
            # Who repeats the third message of a device gets the device's welcome, sealed: it says nothing to others.
            assert all(is_sealed(message) for message in answers)
            assert to_device(relay, "0" * 16) == []
            assert list(home.agent.client.devices.peers) == [phone.device]
            assert not home.agent.of("client.joining")[1:] and not phone.of("client.refused")


class Agent48:
    """An agent of somebody who knows a link's `k`, and sits at the relay: it has a key pair of its own."""

    def __init__(self, link):
        self.key = v3.StaticKey(b"\7" * 32)
        self.enrolments = v3.Enrolments(TOKEN, self.key)
        self.enrolments.open(link.secret)

    def answer(self, message):
        device, message_id = message["device"], message["id"]
        random = pseudo.Random(1).randbytes
        payload = self.enrolments.handle_first(v3.Now(0, 0), random, device, message_id, message["payload"])
        return {"v": 1, "type": "key_exchange", "payload": payload, "device": device}


async def test_who_knows_the_secret_of_a_link_does_not_pass_as_its_agent(tmp_path, impatient):
    """48: the device refuses another key than the link's `a`, and shows no code; the true agent's answer still comes."""
    thief, tries = None, []

    def in_the_middle(_who, message):
        if step(message) == 1 and not tries:
            tries.append(message)
            answer = thief.answer(message)
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(relay.tell(message["device"], answer)))
            return []
        return [message]

    async with LyingRelay(in_the_middle) as relay, Household(relay.url, TOKEN, tmp_path) as home:
        link = await home.first()
        thief = Agent48(link)
        async with home.party("phone", link) as phone:
            assert (await phone.expect("client.refused")).payload["reason"] == "other agent"
            assert not phone.of("client.enrolling")
            await phone.expect("client.agreed")
            await asks(phone, home.agent)


def test_without_the_link_s_agent_the_codes_differ_and_cannot_be_ground():
    """48: the middle has both ends' first messages; no third message that it makes moves the code that the agent shows."""
    k, agent_key, now = b"\1" * 32, v3.StaticKey(b"\2" * 32), v3.Now(0, 0)
    random, device = pseudo.Random(48).randbytes, "0123456789abcdef"
    thief_key = v3.StaticKey(b"\7" * 32)
    victim = v3.Enrolment(TOKEN, device, v3.StaticKey(b"\3" * 32), k, v3.agent_print(thief_key.public), "Phone", "web")
    thief = v3.Enrolments(TOKEN, thief_key)
    thief.open(k)
    message_id, first = victim.poll_first(now, random, "f")
    shown = victim.handle_second(now, thief.handle_first(now, random, device, message_id, first)).code
    codes = set()
    for at in range(v3.enrol.FIRST_MAX + 1):
        agent = v3.Enrolments(TOKEN, agent_key)
        agent.open(k)
        r, own = random(32), v3.StaticKey(random(32))
        handshake = Handshake(ENROL, TOKEN, device, k, own, random(32), initiator=True)
        first = handshake.write(v3.keys.commitment(own.public, r))
        second = agent.handle_first(now, random, device, "t", wire.key_exchange(first, enrol=1))
        handshake.read(wire.parse_key_exchange(second)[1])
        seen = set()
        for name in ("a", "b", "c" * 60):  # all that is left to choose
            about = json.dumps({"r": b64url(r), "name": name, "platform": ""}).encode()
            copied = Handshake.__new__(Handshake)
            copied.__dict__.update(handshake.__dict__)
            again = v3.Enrolments(TOKEN, agent_key)
            again.links = [enrol.Open(link.k, None, 1, [copy_of(link.pending[0])]) for link in agent.links]
            seen.add(again.handle_third(now, device, wire.key_exchange(copied.write(about), enrol=3)).code)
        assert len(seen) == 1, at
        codes |= seen
    assert shown not in codes and len(codes) == v3.enrol.FIRST_MAX + 1


def copy_of(pending):
    handshake = Handshake.__new__(Handshake)
    handshake.__dict__.update(pending.handshake.__dict__)
    return enrol.Pending(pending.device, pending.first, pending.second, handshake, pending.commitment)


@pytest.mark.parametrize("ext", [None, {"v": 1}, {"v": 1, "legacy": True}, {"v": 1, "device": "0" * 16}, {"v": 2}, 7])
async def test_nothing_presses_a_phone_with_the_agent_s_name_down_to_version_2(tmp_path, ext):
    """49: where the relay hides devices the phone says why, and nothing but `auth` has left it."""
    async with LyingRelay(ext=lambda who, truth: truth if who == "agent" else ext) as relay:
        async with Household(relay.url, TOKEN, tmp_path) as home:
            async with home.party("phone", await home.first()) as phone:
                assert "does not take this phone for a device" in await phone.end()
                assert [message["type"] for message in sent_by(relay, phone.device)] == ["auth"]


async def test_an_invite_opens_no_version_2(tmp_path):
    """49: not even while the plain phone's place is open; that place has another secret."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path, keep_plain=True) as home:
        await home.first()
        invite = await home.agent.client.invite()
        async with Party("phone", Link(TOKEN, relay.url, invite.secret), clear_after=None) as plain:
            await home.agent.expect("client.refused", reason="wrong_secret")
            assert plain.client.protection is Protection.WAITING
        await home.device("phone", invite)


async def test_a_name_that_would_move_a_terminal_enrols_nobody(tmp_path, monkeypatch):
    """58: escape sequences, bidirectional controls, 10,000 characters, sent by a device that does not clean them."""
    names = ["\x1b[2J\x1b[31mred", "\u202eevil", "two\nlines", "x" * 65, "x" * 10_000]
    monkeypatch.setattr(enrol, "SILENCE", 60)
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        await home.first()
        for at, name in enumerate(names):
            link = await home.agent.client.invite()
            device = home.party(f"evil{at}", link)
            device.client.agent.enrolment.about["name"] = name
            async with device:
                await home.agent.expect("client.refused", reason="malformed" if len(name) > 1000 else "name")
                assert to_device(relay, device.device)[1:] == []
            home.agent.client.devices.state.enrolments.links.pop()
        assert not home.agent.of("client.joining") and not home.agent.client.devices.peers


async def test_who_is_refused_leaves_no_trace(tmp_path):
    """32: a photographed link was used first; the code on the inviter's screen is the thief's, and says so."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        asked = await phone.client.send("device.invite")
        result = (await phone.expect("device.invite.result", ref=asked)).payload
        async with home.party("thief", Link.parse(result["link"])) as thief:
            code = (await thief.expect("client.enrolling")).payload["code"]
            pending = (await phone.expect("device.pending")).payload
            assert (pending["device"], pending["name"], pending["code"]) == (thief.device, "thief", code)
            refusal = await phone.client.send("device.refuse", {"device": thief.device})
            listed = (await phone.expect("device.list.result", ref=refusal)).payload["devices"]
            assert [one["device"] for one in listed] == [phone.device]
            await relay.until_seen(lambda _, message: message["type"] == "relay.revoke")
            with pytest.raises(TimeoutError):
                await thief.client.send("chat.send", {"text": "let me in"}, timeout=SILENT)
            assert [step(message) for message in to_device(relay, thief.device)] == [2], "nothing was sealed for it"
        assert [path.stem for path in (tmp_path / "agent.json.d").iterdir()] == [phone.device]


async def test_only_the_inviter_admits(tmp_path):
    """The owner invites; another device has no say, and the new one is admitted by the inviter's word alone."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        link = (await request(phone, "device.invite", result="device.invite.result"))["link"]
        async with home.party("browser", Link.parse(link)) as browser:
            await phone.expect("device.pending", device=browser.device)
            error = await request(tablet, "device.admit", {"device": browser.device}, result="chat.error")
            assert error["code"] == "NOT_ALLOWED" and not browser.of("device.welcome")
            await request(phone, "device.admit", {"device": browser.device})
            welcome = (await browser.expect("device.welcome")).payload
            named = {one["name"]: one for one in welcome["devices"]}
            assert named["browser"]["you"] and named["browser"]["by"] == phone.device and named["phone"]["owner"]
            await asks(browser, home.agent)


# ---- Messages and sessions ----


async def test_what_is_swapped_between_questions_does_not_open(tmp_path, impatient):
    """50: two questions with their ids, types or devices swapped: neither is acted on so; both arrive in the end, once."""
    caught, swaps = [], ["id", "type", "device"]
    swapping = False

    def swap(who, message):
        nonlocal swapping
        if not (swapping and who != "agent" and is_sealed(message) and message["type"] != "ack"):
            return [message]
        caught.append(message)
        if len(caught) < 2:
            return []
        one, two = caught
        caught.clear()
        swapping, field = False, swaps.pop(0)
        return [one | {field: two[field]}, two | {field: one[field]}]

    async with LyingRelay(swap) as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        for field in list(swaps):
            swapping = True
            second = tablet if field == "device" else phone
            kind = "chat.cancel" if field == "type" else "chat.send"
            ids = [await phone.client.send("chat.send", {"text": f"first {field}"})]
            ids.append(await second.client.send(kind, {"text": f"second {field}"}))
            await home.agent.expect("client.refused", reason="forged")
            for device, asked in zip((phone, second), ids, strict=True):
                event = await arrived(home.agent, asked)
                assert (event.device, event.protection) == (device.device, Protection.VERIFIED)
        texts = [payload["text"] for payload in home.agent.of("chat.send") + home.agent.of("chat.cancel")]
        assert len(texts) == len(set(texts)) == 6


async def arrived(party, message_id):
    """The message with this id, wherever it is among what was told."""
    await party._until(lambda: any(event.id == message_id for event in party.told), message_id, 20)
    return next(event for event in party.told if event.id == message_id)


async def test_the_envelope_s_time_is_the_relay_s_to_alter(tmp_path):
    """50: nothing hangs on `ts`."""
    async with LyingRelay(lambda _who, message: [message | {"ts": 0, "v": 7}]) as relay:
        async with Household(relay.url, TOKEN, tmp_path) as home:
            phone = await home.device("phone")
            await asks(phone, home.agent)
            await tells(home.agent, [phone])
            assert not home.agent.of("client.refused") and not phone.of("client.refused")


async def test_a_device_of_the_relay_s_own_gets_nothing(tmp_path):
    """30: listed, said to be online, speaking: nothing is sealed for it, and the relay is told that it is none."""
    stranger = "feedfeedfeedfeed"
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        relay.admitted.add(stranger)
        relay.cut("agent")
        await relay.until_seen(lambda _, m: m["type"] == "relay.revoke" and m["payload"]["device"] == stranger)
        for kind in ("relay.pending", "relay.device"):
            await relay.tell("agent", {"type": kind, "payload": {"device": stranger, "online": True}})
        sealed = next(message for message in sent_by(relay, phone.device) if is_sealed(message))
        opening = wire.key_exchange(bytes(48))
        for message in (sealed, {"type": "chat.send", "id": "x", "payload": {"text": "in clear"}}):
            await relay.tell("agent", message | {"device": stranger})
        await relay.tell("agent", {"type": "key_exchange", "id": "o", "payload": opening, "device": stranger})
        await asks(phone, home.agent)
        await tells(home.agent, [phone])
        assert to_device(relay, stranger) == [] and len(home.agent.of("chat.send")) == 1


async def test_openings_that_are_replayed_change_nothing(tmp_path, impatient, monkeypatch):
    """30, 51: 1,000 of them, old and new, get 12 answers a minute at most; a true one gets through when that is over."""
    monkeypatch.setattr(v3_agent, "OPENINGS_SPAN", 1.5)
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        for _ in range(2):
            await opens_anew(phone, relay)
            await asks(phone, home.agent)
        openings = [message for message in sent_by(relay, phone.device) if step(message) == 0]
        session = home.agent.client.devices.peers[phone.device].end.sessions
        sid, before = session.sid, len(answers_to(relay, phone))
        for at in range(1000):
            await relay.tell("agent", openings[at % len(openings)])
        await asks(phone, home.agent, "after a thousand")
        assert session.sid == sid and len(answers_to(relay, phone)) - before <= v3_agent.OPENINGS_MAX
        await opens_anew(phone, relay)
        await asks(phone, home.agent, "with keys of its own")
        await tells(home.agent, [phone])
        assert session.sid != sid and phone.of("client.refused") == []


def answers_to(relay, device):
    return [message for message in to_device(relay, device.device) if step(message) == 0]


async def opens_anew(device, relay):
    """A hint in clear text makes the device open a session, and the agent confirms it."""
    agreed = len(device.of("client.agreed"))
    hint = {"code": "DECRYPTION_FAILED", "message": "so the relay says"}
    await relay.tell(device.device, {"type": "chat.error", "payload": hint})
    await device._until(lambda: len(device.of("client.agreed")) > agreed, "a session", 20)


async def test_a_device_that_opened_anew_and_says_nothing_gets_the_new_keys_at_once(tmp_path):
    """52: the agent seals with them at once, and a copy of either state from before does not read that."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await asks(phone, home.agent)
        await home.agent.client.delivered()
        copies = [phone.client.agent.end.state, json.loads((tmp_path / "phone.json").read_text())["end"]]
        old = phone.client.agent.end.sessions.sid
        await opens_anew(phone, relay)
        peer = home.agent.client.devices.peers[phone.device]
        async with asyncio.timeout(5):  # nothing is said, and nothing breaks, that would make it happen
            while peer.end.sessions.sid == old:
                await asyncio.sleep(0.01)
        await tells(home.agent, [phone], "sealed with the new keys")
        sealed = [message for message in to_device(relay, phone.device) if message["type"] == "chat.done"][-1]
        assert sealed["payload"]["s"] == b64url(peer.end.sessions.sid)
        for copy in copies:
            with pytest.raises(v3.OpenError):
                v3.DeviceEnd.load(copy).open(keyed.now(), "chat.done", sealed["id"], sealed["payload"])


async def test_garbage_far_ahead_costs_little_and_moves_nothing(tmp_path, monkeypatch):
    """53: 100 a second with the highest number that is still looked at: one of them a second is tried."""
    wound = []
    wind = sessions.Chain.wound
    monkeypatch.setattr(sessions.Chain, "wound", lambda chain, count: wound.append(count) or wind(chain, count))
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await asks(phone, home.agent)
        receiving = home.agent.client.devices.peers[phone.device].end.sessions.receiving[0]
        before, began = receiving.chain, time.monotonic()
        garbage = wire.enclose(receiving.sid, before.next + sessions.AHEAD_MAX, bytes(12), bytes(64))
        for at in range(150):
            await relay.tell("agent", {"type": "chat.send", "id": str(at), "payload": garbage, "device": phone.device})
            await asyncio.sleep(0.01)
        assert receiving.chain == before
        assert 1 <= sum(count > 1000 for count in wound) <= time.monotonic() - began + 2
        await asks(phone, home.agent, "live")
        assert [payload["text"] for payload in home.agent.of("chat.send")] == ["a question", "live"]


async def test_a_seal_that_was_held_back_does_not_open_once_its_text_came_in_a_newer_session(tmp_path, impatient):
    """55: with all that the agent has afterwards."""
    held = []

    def hold_back(who, message):
        if message["type"] == "chat.send" and not held:
            held.append(message)
            return []
        return [message]

    async with LyingRelay(hold_back) as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await phone.client.send("chat.send", {"text": "held back"})
        await relay.until_seen(lambda _, message: message["type"] == "chat.send")
        await opens_anew(phone, relay)
        await home.agent.expect("chat.send", text="held back")
        await phone.client.delivered()
        stolen = home.agent.client.devices.peers[phone.device].end.state
        end = v3.AgentEnd.load(TOKEN, home.agent.client.devices.state.own, stolen)
        with pytest.raises(v3.OpenError, match="unknown session"):
            end.open(keyed.now(), "chat.send", held[0]["id"], held[0]["payload"])
        await relay.tell("agent", held[0])
        await asks(phone, home.agent)
        assert [payload["text"] for payload in home.agent.of("chat.send")] == ["held back", "a question"]


@pytest.mark.parametrize("lie", [None, "offline"])
async def test_a_question_that_is_left_out_is_not_acknowledged(tmp_path, impatient, lie):
    """54, as far as there is no mailbox: one is dropped, the next arrives; the first is asked for, whatever is claimed."""
    dropped = []

    def drop(who, message):
        if message["type"] == "chat.send" and not dropped:
            dropped.append(message["id"])
            return []
        return [message]

    async with LyingRelay(drop) as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        first = await phone.client.send("chat.send", {"text": "first"})
        second = await phone.client.send("chat.send", {"text": "second"})
        if lie:
            await relay.tell("agent", {"type": "relay.device", "payload": {"device": phone.device, "online": False}})
            await asyncio.sleep(SILENT)
            assert not phone.client.agent.is_idle
            await relay.tell("agent", {"type": "relay.device", "payload": {"device": phone.device, "online": True}})
        await arrived(home.agent, second)
        assert [event.id for event in home.agent.told if event.type == "chat.send"] == [first, second]
        await phone.client.delivered()


FORGED = [
    {"type": "relay.admitted", "payload": {}},
    {"type": "relay.mail", "payload": {"upto": 9, "left": 0, "lost": 3}},
    {"type": "relay.kept", "payload": {"ref": "a question"}},
    {"type": "auth.fail", "payload": {"code": "UNAUTHORIZED", "message": "go away"}},
    {"type": "chat.done", "payload": {"full_text": "in clear"}},
    {"type": "device.welcome", "payload": {"devices": []}},
]


@pytest.mark.parametrize("code", [4002, 4001])
async def test_a_device_deletes_nothing_on_the_relay_s_word(tmp_path, code):
    """57: forged words change no key and admit nobody; the connection's end is told, and the device goes on afterwards."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await asks(phone, home.agent)
        await phone.client.delivered()
        for message in FORGED:
            await relay.tell(phone.device, message)
        await asks(phone, home.agent, "after all of it")
        await phone.client.delivered()
        kept = (tmp_path / "phone.json").read_text()
        assert not phone.of("chat.done") and not phone.of("device.welcome")[1:]
        await relay.sockets[phone.device].close(code)
        assert await phone.end()
        await phone.__aexit__()
        assert json.loads((tmp_path / "phone.json").read_text())["end"]["psk"] == json.loads(kept)["end"]["psk"]
        phone = await home.device("phone")
        await asks(phone, home.agent, "all the same")


async def test_a_forged_admission_admits_nobody(tmp_path):
    """57: what the device goes by is the agent's sealed welcome."""
    decision = asyncio.get_running_loop().create_future()

    async def decide(_joining):
        return await decision

    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path, admit=decide) as home:
        async with home.party("phone", await home.first()) as phone:
            await phone.expect("client.enrolling")
            await relay.tell(phone.device, {"type": "relay.admitted", "payload": {}})
            await phone.expect("relay.admitted")
            with pytest.raises(TimeoutError):
                await phone.client.send("chat.send", {"text": "too early"}, timeout=SILENT)
            assert not [message for message in sent_by(relay, phone.device) if is_sealed(message)]
            decision.set_result(True)
            await phone.expect("device.welcome")
            await asks(phone, home.agent)


async def test_a_revoked_device_gets_not_one_byte_whatever_the_relay_does(tmp_path, impatient):
    """56, 28: what it invited goes with it, its open links admit nobody, and the plain phone has to scan anew."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path, keep_plain=True) as home:
        await home.first()
        home.agent.client.devices.state.first = None  # the plain phone's place stays open, as for an old app
        thief = await home.device("thief", await home.agent.client.invite())
        other = await home.device("other", await home.agent.client.invite())
        home.agent.client.devices.own(other.device)
        friend_link = (await request(thief, "device.invite", result="device.invite.result"))["link"]
        friend = home.party("friend", Link.parse(friend_link))
        async with friend:
            await thief.client.send("device.admit", {"device": (await thief.expect("device.pending")).payload["device"]})
            await friend.expect("client.agreed")
            unused = (await request(thief, "device.invite", result="device.invite.result"))["link"]
            plain = home.agent.client.devices.state.plain
            await home.agent.client.revoke(thief.device)
            gone = {event.device for event in home.agent.told if event.type == "client.left"}
            await home.agent._until(lambda: len(home.agent.of("client.left")) == 2, "two that left", 20)
            assert {payload["device"] for payload in home.agent.of("client.left")} == {thief.device, friend.device}
            assert home.agent.client.devices.state.plain != plain and gone <= {thief.device, friend.device}
            before = len(to_device(relay, thief.device)) + len(to_device(relay, friend.device))
            await thief.client.send("chat.send", {"text": "still there?"})
            await friend.client.send("chat.send", {"text": "and I?"})
            await opens_in_vain(thief, relay)
            async with home.party("late", Link.parse(unused)) as late:
                assert "show a new one" in await late.end()
            await tells(home.agent, [other], "not for you")
            assert len(to_device(relay, thief.device)) + len(to_device(relay, friend.device)) == before
            assert home.agent.of("chat.send") == []
            assert [path.stem for path in (tmp_path / "agent.json.d").iterdir()] == [other.device]


async def opens_in_vain(device, relay):
    openings = len([message for message in sent_by(relay, device.device) if step(message) == 0])
    await relay.tell(device.device, {"type": "chat.error", "payload": {"code": "DECRYPTION_FAILED", "message": "?"}})
    async with asyncio.timeout(20):
        while len([message for message in sent_by(relay, device.device) if step(message) == 0]) == openings:
            await asyncio.sleep(0.01)


async def test_a_device_that_never_acknowledges_holds_nobody_up(tmp_path, monkeypatch):
    """11: the agent holds what its window lets it, parks the device when it has been silent for long, and goes on."""
    monkeypatch.setattr(keyed, "STALLED", 4)
    deaf = []

    def no_acks(who, message):
        return [] if who in deaf and message["type"] == "ack" else [message]

    async with LyingRelay(no_acks) as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone, tablet = await home.device("phone"), await home.device("tablet")
        await asks(tablet, home.agent)
        deaf.append(tablet.device)
        for number in range(600):
            await home.agent.client.send("chat.note", {"text": f"{number} " + "x" * 2000})
            if number % 100 == 99:
                await phone.expect("chat.note", text=f"{number} " + "x" * 2000)
        await relay.until_seen(lambda _, m: m["type"] == "relay.park" and m["payload"]["device"] == tablet.device)
        peer = home.agent.client.devices.peers[tablet.device]
        assert sum(message.size for message in peer.resume.sender.held) <= 192 << 10 and not peer.online
        assert sum(1 for message in to_device(relay, tablet.device) if message["type"] == "chat.note") < 150
        deaf.clear()
        await relay.tell("agent", {"type": "relay.device", "payload": {"device": tablet.device, "online": True}})
        await tablet.expect("chat.note", text="599 " + "x" * 2000)


# ---- Restarts, and states that are set back ----


async def test_restarts_of_either_end_in_any_order_lose_nothing(tmp_path):
    """34: agent, device, both, killed and ended; each time what was sent before opens, in both directions, and once."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        for at, who in enumerate(("agent", "phone", "both", "agent killed", "phone killed")):
            await asks(phone, home.agent, f"before {at}")
            await tells(home.agent, [phone], f"answer {at}")
            await phone.client.delivered()
            await home.agent.client.delivered()
            ends = [home.agent] * ("agent" in who or who == "both") + [phone] * ("phone" in who or who == "both")
            for end in ends:
                await (end.crash() if "killed" in who else end.__aexit__())
            if home.agent in ends:
                if "killed" in who:
                    home.agent.client.devices.close()
                await home.start()
            if phone in ends:
                if "killed" in who:
                    phone.client.agent.close()
                phone = await home.device("phone")
            await asks(phone, home.agent, f"after {at}")
            await tells(home.agent, [phone], f"after {at}")
            for end in (home.agent, phone):
                texts = [payload.get("text", payload.get("full_text")) for payload in end.of("chat.send") + end.of("chat.done")]
                assert len(texts) == len(set(texts)), who
                assert end.of("client.refused") == [], who


class Repeating:
    """A source of randomness that a snapshot has set back: it says the same again."""

    def __init__(self):
        self.random = pseudo.Random(35)

    def __call__(self, count):
        return self.random.randbytes(count)


@pytest.mark.parametrize("by", [0, 1, 63, 64, 65, 5000])
@pytest.mark.parametrize("who", ["agent", "phone"])
async def test_a_state_that_is_set_back_heals_and_seals_no_two_texts_alike(tmp_path, impatient, who, by):
    """35: after one handshake at most all goes on, nothing is acknowledged that was not taken, and no key and nonce come
    twice, although the randomness repeats, too."""
    files = {"agent": "agent.json.d", "phone": "phone.json"}
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await asks(phone, home.agent, "the first")
        await phone.client.delivered()
        phone, path = await restart(home, phone, who), tmp_path / files[who]
        path = next(path.iterdir()) if path.is_dir() else path
        kept = path.read_text()
        await speak(home, phone, who, min(by, 65), "lost")
        end = home.agent.client.devices.peers[phone.device].end if who == "agent" else phone.client.agent.end
        other = phone.client.agent.end if who == "agent" else home.agent.client.devices.peers[phone.device].end
        for number in range(by - 65):  # the rest without a network: what they would have sealed and opened
            message_id = str(number)
            payload, _ = end.seal(Repeating(), "chat.note", message_id, {"number": number})
            other.open(keyed.now(), "chat.note", message_id, payload)
        await stop(home, phone, who)
        path.write_text(kept)
        phone = await restart(home, phone, who, is_stopped=True)
        await speak(home, phone, who, 2, "afterwards")
        await asks(phone, home.agent, "both ways")
        await tells(home.agent, [phone], "both ways")
        for sender in (phone.device, "agent"):
            seen = {}
            for message in sent_by(relay, sender):
                if is_sealed(message):
                    payload = message["payload"]
                    key = payload["s"], payload["i"], payload["nonce"]
                    assert seen.setdefault(key, payload["ciphertext"]) == payload["ciphertext"], "two texts under one nonce"


async def stop(home, phone, who):
    await (home.agent if who == "agent" else phone).__aexit__()


async def restart(home, phone, who, is_stopped=False):
    """The end that will be set back begins anew, with randomness that will repeat itself; the phone of now."""
    if not is_stopped:
        await stop(home, phone, who)
    if who == "agent":
        await home.start(random=Repeating())
        await home.agent.expect("client.connected")
        return phone
    return await home.device("phone", random=Repeating())


async def speak(home, phone, who, count, text):
    """So many messages of the end that is set back, all of which arrive."""
    for number in range(count):
        if who == "agent":
            await home.agent.client.send("chat.note", {"text": f"{text} {number}"})
        else:
            await phone.client.send("chat.note", {"text": f"{text} {number}"})
    other = phone if who == "agent" else home.agent
    if count:
        await other.expect("chat.note", text=f"{text} {count - 1}")
    await (home.agent if who == "agent" else phone).client.delivered()


async def test_a_stolen_state_does_not_open_what_was_recorded_before(tmp_path):
    """36: the device's keys after message m, and every message up to m."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        for at in range(5):
            await asks(phone, home.agent, f"question {at}")
            await tells(home.agent, [phone], f"answer {at}")
        await phone.client.delivered()
        await home.agent.client.delivered()
        await phone.__aexit__()
        stolen = json.loads((tmp_path / "phone.json").read_text())["end"]
        recorded = [message for message in to_device(relay, phone.device) if is_sealed(message)]
        assert len(recorded) > 5
        for message in recorded:
            with pytest.raises(v3.OpenError):
                v3.DeviceEnd.load(stolen).open(keyed.now(), message["type"], message.get("id"), message["payload"])


@pytest.mark.parametrize("restored", [True, False])
async def test_an_agent_of_a_backup_acts_on_nothing_that_was_recorded_since(tmp_path, impatient, restored):
    """60: with `restored`; without it what came since opens once more, which is what the flag is for."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        link = await home.agent.client.invite()
        await phone.client.delivered()
        await home.agent.__aexit__()
        backup = {path: path.read_bytes() for path in tmp_path.rglob("*.json") if "agent.json" in str(path)}
        await home.start()
        for at in range(3):
            await asks(phone, home.agent, f"since {at}")
        await phone.client.delivered()
        recorded = [message for message in sent_by(relay, phone.device) if is_sealed(message)]
        await phone.__aexit__()
        await home.agent.__aexit__()
        for path, content in backup.items():
            path.write_bytes(content)
        await home.start(restored=restored)
        await home.agent.expect("client.connected")
        await relay.tell("agent", {"type": "relay.device", "payload": {"device": phone.device, "online": True}})
        for message in recorded:
            await relay.tell("agent", message)
        await asyncio.sleep(SILENT)
        assert (home.agent.of("chat.send") == []) is restored
        if restored:
            async with home.party("late", link) as late:
                assert "show a new one" in await late.end()
            phone = await home.device("phone")
            await asks(phone, home.agent, "and on")


async def test_a_relay_that_is_busy_is_asked_again(tmp_path, monkeypatch):
    """What it has not confirmed is said again on the same connection: binding, the links, a revocation."""
    monkeypatch.setattr(devices, "RETRY_TIME", 0.1)
    busy = dict.fromkeys(("relay.bind", "relay.invite", "relay.revoke"), 2)

    class Busy(LyingRelay):
        async def _obey(self, who, message):
            if busy.get(message["type"]):
                busy[message["type"]] -= 1
                error = {"code": "RELAY_BUSY", "message": "the disk is slow", "ref": message["id"]}
                await self.tell(who, {"type": "chat.error", "payload": error})
                return
            await super()._obey(who, message)

    async with Busy() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        phone = await home.device("phone")
        await home.agent.client.revoke(phone.device)
        assert not any(busy.values())
        assert len([m for m in sent_by(relay, "agent") if m["type"] == "relay.revoke"]) == 3


# ---- What devices may, and the plain phone's place ----


async def test_a_device_manages_itself_and_the_owner_manages_all(tmp_path):
    """3.9: renaming and revoking; what is not allowed or makes no sense is refused with its code, and changes nothing."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        owner, guest = await home.device("owner"), await home.device("guest")
        refused = [
            (guest, "device.revoke", {"device": owner.device}, "NOT_ALLOWED"),
            (guest, "device.rename", {"device": owner.device, "name": "mine"}, "NOT_ALLOWED"),
            (owner, "device.rename", {"device": owner.device, "name": "\u202e"}, "INVALID_MESSAGE"),
            (owner, "device.rename", {"device": owner.device, "name": ""}, "INVALID_MESSAGE"),
            (owner, "device.rename", {"device": owner.device, "name": 7}, "INVALID_MESSAGE"),
            (owner, "device.revoke", {"device": "f" * 16}, "DEVICE_UNKNOWN"),
            (owner, "device.revoke", {}, "INVALID_MESSAGE"),
            (owner, "device.obey", {"device": guest.device}, "INVALID_MESSAGE"),
        ]
        for device, kind, payload, code in refused:
            assert (await request(device, kind, payload, result="chat.error"))["code"] == code, (kind, payload)
        listed = (await request(guest, "device.rename", {"device": guest.device, "name": "Kitchen"}))["devices"]
        assert [one["name"] for one in listed] == ["owner", "Kitchen"]
        await owner._until(lambda: owner.of("device.list.result")[-1]["devices"][1]["name"] == "Kitchen", "a notice", 20)
        listed = (await request(owner, "device.revoke", {"device": guest.device}))["devices"]
        assert [one["name"] for one in listed] == ["owner"]
        assert [m["payload"]["device"] for m in sent_by(relay, "agent") if m["type"] == "relay.revoke"] == [guest.device]
        await owner.client.send("device.revoke", {"device": owner.device})
        await home.agent.expect("client.left", device=owner.device)
        assert home.agent.client.devices.peers == {}


@pytest.mark.parametrize("keep", [False, True])
async def test_a_plain_phone_s_place_that_nobody_uses_is_closed_after_a_week(tmp_path, keep):
    """31, 3.13: where there is a device in its stead, and unless it is to be kept."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        link = await home.first()
        async with Party("phone", Link(TOKEN, relay.url, link.secret)) as old:
            await old.expect("client.agreed")
            await home.device("phone", await home.agent.client.invite())
        await home.agent.__aexit__()
        path = tmp_path / "agent.json"
        value = json.loads(path.read_text())
        for days, closes in ((6, False), (8, not keep)):
            path.write_text(json.dumps(value | {"plain_at": time.time() - days * 86_400}))
            before = len(relay.seen)
            await home.start(keep_plain=keep)
            await home.agent.expect("client.connected")
            if closes:
                bind = await relay.until_seen(lambda _, m: m["type"] == "relay.bind" and m["payload"]["legacy_phone"] is False)
                assert bind and home.agent.client.plain is None
            else:
                await asyncio.sleep(SILENT)
                assert not [m for _, m in relay.seen[before:] if m["type"] == "relay.bind"] and home.agent.client.plain
            await home.agent.__aexit__()


async def test_a_state_file_is_one_process_s_and_its_owner_s(tmp_path):
    """A second client is refused in words, as is a damaged file, or one that is of another token."""
    async with LyingRelay() as relay, Household(relay.url, TOKEN, tmp_path) as home:
        await home.device("phone")
        for role, name in (("agent", "agent"), ("phone", "phone")):
            with pytest.raises(StateError, match="another"):
                Party(role, Link(TOKEN, relay.url), state=tmp_path / f"{name}.json")
        files = [path for path in tmp_path.rglob("*.json")]
        assert len(files) == 3 and all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    for text, match in (("{", "remove it"), ('{"v":2}', "remove it"), ('{"v":1}', "damaged")):
        (tmp_path / "agent.json").write_text(text)
        with pytest.raises(StateError, match=match):
            Party("agent", Link(TOKEN, relay.url), state=tmp_path / "agent.json")
