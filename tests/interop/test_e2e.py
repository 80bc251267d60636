"""End-to-end encryption over a real relay: all phones with all agents, and a malicious relay."""

import asyncio
import contextlib
import itertools
import json
import os
import sys

import pytest

import coralmux
from ends import MAKES, PythonEnd, end
from middle import Middle
from relay import ROOT

SECRET = bytes(range(32))
PAIRS = list(itertools.product(MAKES["phone"], MAKES["agent"]))
WORD = "hippopotamus"  # what nobody in the middle may read


@contextlib.asynccontextmanager
async def two(url, token, phone, agent, secret=SECRET):
    """An agent and a phone; the agent is there first."""
    async with end(agent, "agent", url, token, secret) as agent:
        await agent.event("connected")
        async with end(phone, "phone", url, token, secret) as phone:
            yield phone, agent


async def talk(phone, agent, count=3):
    """Both directions, with payloads of all sorts."""
    for number in range(count):
        question = {"text": f"{WORD} {number} \u6f22\u5b57 \U0001f40b \" \\ /", "n": number}
        await phone.send("chat.send", question)
        assert await agent.message("chat.send") == question
        for seq in (1, 2):
            await agent.send("chat.stream", {"delta": WORD, "seq": seq})
        await agent.send("chat.done", {"full_text": WORD * 2000})
        for seq in (1, 2):
            assert await phone.message("chat.stream") == {"delta": WORD, "seq": seq}
        assert await phone.message("chat.done") == {"full_text": WORD * 2000}


@pytest.mark.parametrize("secret", [None, SECRET], ids=["version1", "version2"])
@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_any_phone_talks_to_any_agent_and_the_relay_reads_nothing(relay, phone, agent, secret):
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token, phone, agent, secret) as (phone, agent):
        of_phone, of_agent = await phone.secure(), await agent.secure()
        assert of_phone == of_agent
        assert of_phone[0] == (2 if secret else 1)
        assert (of_phone[1] is None) == (secret is not None)
        await talk(phone, agent)
        # Each of them comes back, and agrees keys anew.
        for role, one, other in (("phone", phone, agent), ("agent", agent, phone)):
            assert middle.cut(role)
            await asyncio.gather(one.secure(), other.secure())
            await talk(phone, agent, 1)
        assert middle.seen and not any(WORD in text for _, text in middle.seen)


@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_a_wrong_secret_is_refused_and_said(relay, phone, agent):
    token = await relay.token()
    async with Middle(relay) as middle, end(agent, "agent", middle.url, token, SECRET) as agent:
        await agent.event("connected")
        async with end(phone, "phone", middle.url, token, bytes(32)) as phone:
            await phone.send("chat.send", {"text": WORD})
            error = await phone.event("error")
            assert error["code"] == "DECRYPTION_FAILED" and "pair again" in error["message"]
            assert not error.get("authenticated")
            assert not any(WORD in text for _, text in middle.seen)
        # The right one is let in.
        async with end("python", "phone", middle.url, token, SECRET) as phone:
            await phone.secure()
            await talk(phone, agent, 1)


@pytest.mark.parametrize("phone", MAKES["phone"])
async def test_a_phone_with_the_secret_sends_nothing_to_an_agent_without(relay, phone):
    token = await relay.token()
    async with Middle(relay) as middle, end("python", "agent", middle.url, token) as agent:
        await agent.event("connected")
        async with end(phone, "phone", middle.url, token, SECRET) as phone:
            await phone.send("chat.send", {"text": WORD})
            assert (await phone.event("refused", "error"))["message"]
            await asyncio.sleep(0.3)  # what must not come has had its time
            assert {json.loads(text)["type"] for role, text in middle.seen if role == "phone"} <= {"ping"}


@pytest.mark.parametrize("agent", MAKES["agent"])
async def test_an_agent_with_the_secret_acts_on_nothing_else(relay, agent):
    token = await relay.token()
    async with end(agent, "agent", relay.url, token, SECRET) as agent:
        await agent.event("connected")
        old = PythonEnd("phone", coralmux.Link(token, relay.url))
        async with old:  # it learns of the announcement that the agent wants its secret, and says nothing
            assert "secret" in (await old.event("refused"))["message"]
        from client import Client  # a client of version 1 that knows no better, and one that does not encrypt

        async with await Client.authed(relay, token, "phone") as phone:
            assert (await phone.expect("key_exchange"))["e2e"] == 2
            for kind, payload in [
                ("key_exchange", {"pubkey": "CQ" + "A" * 41 + "="}),
                ("chat.send", {"text": "in clear"}),
                ("chat.send", None),
                ("chat.send", {"enc": True, "ciphertext": "AAAA", "nonce": "AAAAAAAAAAAAAAAA"}),
            ]:
                await phone.send(kind, payload)
                await phone.expect_error("DECRYPTION_FAILED")
        async with end("python", "phone", relay.url, token, SECRET) as phone:
            await phone.secure()
            await talk(phone, agent, 1)  # which fails where one of those was taken


# ---- A relay that lies ----


class Swapped:
    """Agrees keys with each of the two, as if it were the other, and reads and passes on what they say."""

    def __init__(self, token, secret=None):
        self.as_agent = coralmux.End("agent", token, secret)
        self.as_phone = coralmux.End("phone", token, secret)
        self.verified = secret is not None
        self.middle, self.read = None, []

    def __call__(self, role, message):
        kind, payload = message["type"], message.get("payload")
        own, toward_peer = (self.as_agent, self.as_phone) if role == "phone" else (self.as_phone, self.as_agent)
        if kind == "key_exchange":
            return self.exchange(role, own, message)
        try:
            opened = own.open(kind, payload).payload
            sealed = toward_peer.seal(kind, opened)
        except (coralmux.OpenError, coralmux.Waiting):
            return [message]
        self.read.append(json.dumps(opened))
        return [message | {"payload": sealed}]

    def exchange(self, role, own, message):
        payload = message["payload"]
        if not self.verified:
            payload = {"pubkey": payload["pubkey"]}
        try:
            step = own.handle_key_exchange(message["id"], payload, "of-the-middle")
            reply = step.reply
        except coralmux.ExchangeError:  # a secret that it does not know: it makes an answer up
            reply = "key_exchange", payload | {"noise": coralmux.crypto.b64(bytes(48)), "re": message["id"]}
        if role == "phone":
            return [self.tell("phone", *reply)] if reply else []
        announcement = message | {"payload": self.as_agent.handle_online()[1]}
        return [self.tell("agent", *reply), announcement] if reply else [announcement]

    async def tell(self, role, kind, payload):
        await self.middle.inject(role, {"type": kind, "id": "of-the-middle", "payload": payload})


@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_swapped_keys_go_unseen_in_version_1_but_for_the_fingerprints(relay, phone, agent):
    token = await relay.token()
    liar = Swapped(token)
    async with Middle(relay, liar) as middle:
        liar.middle = middle
        async with two(middle.url, token, phone, agent, None) as (phone, agent):
            await asyncio.gather(phone.secure(), agent.secure())
            await talk(phone, agent, 1)
            assert any(WORD in text for text in liar.read)
            assert phone.fingerprint == liar.as_agent.fingerprint
            assert agent.fingerprint == liar.as_phone.fingerprint
            assert phone.fingerprint != agent.fingerprint


def guessed(token):
    """Swaps keys as in version 1, with a secret of its own."""
    return Swapped(token, b"g" * 32)


def downgraded(token):
    """Swaps keys, and says that there is no version 2."""
    return Swapped(token)


def other_ephemeral(_token):
    """A public key of its own in each handshake message."""

    def rewrite(_role, message):
        if "noise" in message.get("payload", {}):
            noise = bytearray(coralmux.crypto.unb64(message["payload"]["noise"]))
            noise[:32] = coralmux.crypto.public_of(bytes(range(1, 33)))
            message = message | {"payload": message["payload"] | {"noise": coralmux.crypto.b64(bytes(noise))}}
        return [message]

    return rewrite


def stripped(_token):
    """All that is of version 2 taken out."""

    def rewrite(_role, message):
        if message["type"] == "key_exchange":
            message = message | {"payload": {"pubkey": message["payload"]["pubkey"]}}
        return [message]

    return rewrite


@pytest.mark.parametrize("attack", [guessed, downgraded, other_ephemeral, stripped])
@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_swapped_keys_are_found_out_in_version_2(relay, phone, agent, attack):
    token = await relay.token()
    liar = attack(token)
    async with Middle(relay, liar) as middle:
        liar.middle = middle
        async with two(middle.url, token, phone, agent) as (phone, agent):
            await phone.send("chat.send", {"text": WORD})
            seen = await phone.event("refused", "error", "secure")
            assert seen["event"] != "secure"
            await asyncio.sleep(0.2)
            assert not any(WORD in text for _, text in middle.seen)
            assert all(json.loads(text)["type"] in ("key_exchange", "chat.error", "ping") for _, text in middle.seen)
            # The lie ends, and the message that waited goes out.
            middle.rewrite = lambda _role, message: [message]
            middle.cut("phone")
            assert (await phone.secure())[0] == 2
            assert await agent.message("chat.send") == {"text": WORD}


class Meddling:
    """Does something else to each message of one end that is encrypted; the rest passes."""

    def __init__(self, role):
        self.role, self.count, self.held, self.first = role, 0, None, None
        self.genuine = []  # what can be taken, in order

    def __call__(self, role, message):
        payload = message.get("payload") or {}
        if role != self.role or payload.get("enc") is not True:
            return [message]
        self.count += 1
        self.first = self.first or message
        data = coralmux.crypto.unb64(payload["ciphertext"])
        other = lambda data: message | {"payload": payload | {"ciphertext": coralmux.crypto.b64(data)}}  # noqa: E731
        match self.count:
            case 2:
                return [message, message]  # twice
            case 3:
                return [other(bytes([data[0] ^ 1]) + data[1:])]
            case 4:
                return [other(data[:-1])]
            case 5:
                return [other(data[:8]), message]
            case 6:
                self.held = message
                return []
            case 7:
                return [message, self.held]  # in the wrong order
            case 8:
                return [message | {"type": "chat.other"}, message]
            case 9:
                return [self.first, message]  # an old one
            case 10:
                return [message | {"payload": {"text": "in clear"}}, message]
            case 11:
                return []  # lost
        return [message]

    TAKEN = [1, 2, 5, 7, 8, 9, 10, 12]
    REFUSED = 8  # the second of 2; 3; 4; half of 5; 6; 8 of another type; 1 again; 10 in clear


@pytest.mark.parametrize(("role", "make"), [(role, make) for role in MAKES for make in MAKES[role]])
async def test_what_was_tampered_with_replayed_or_cut_is_refused_and_the_rest_is_taken(relay, role, make):
    token = await relay.token()
    meddling = Meddling("agent" if role == "phone" else "phone")
    # The other one is old: ends that resume would ask for what they miss (test_resume.py).
    makes = {"phone": "old", "agent": "old"} | {role: make}
    async with Middle(relay, meddling) as middle:
        async with two(middle.url, token, makes["phone"], makes["agent"]) as (phone, agent):
            await asyncio.gather(phone.secure(), agent.secure())
            sender, receiver = (agent, phone) if role == "phone" else (phone, agent)
            for number in range(1, 13):
                await sender.send("chat.tool_status", {"n": number})
            taken, refused = [], 0
            while taken[-1:] != [12]:
                event = await receiver.event("message", "refused", "error")
                if event["event"] == "message":
                    assert event["type"] == "chat.tool_status"
                    taken.append(event["payload"]["n"])
                else:
                    refused += 1
            assert taken == Meddling.TAKEN
            if make == "browser":  # the page says once that it cannot read, until it has opened anew
                assert 0 < refused <= Meddling.REFUSED
            else:
                assert refused == Meddling.REFUSED


def is_opening(role, message):
    return role == "phone" and message["type"] == "key_exchange"


@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_a_repeated_opening_changes_nothing(relay, phone, agent):
    token = await relay.token()
    openings = []

    def keep(role, message):
        if is_opening(role, message):
            openings.append(message)
        return [message]

    async with Middle(relay, keep) as middle, two(middle.url, token, phone, agent) as (phone, agent):
        await asyncio.gather(phone.secure(), agent.secure())
        before = len(middle.seen)
        for opening in openings * 3:
            await middle.inject("relay", opening)
        await phone.send("chat.send", {"text": WORD})
        event = await agent.event("message", "secure", "refused", "error")
        assert event.get("payload") == {"text": WORD}, event
        await talk(phone, agent, 1)
        said = [json.loads(text) for role, text in middle.seen[before:] if role == "agent"]
        kinds = [message["type"] for message in said if message["type"] != "ack"]  # which is due after a second
        assert kinds == ["chat.stream", "chat.stream", "chat.done"]


@contextlib.asynccontextmanager
async def with_other_keys(relay, phone, agent):
    """A pair whose agent was told an opening that the phone has given up: it was held back until now."""
    token = await relay.token()
    held = []

    def hold(role, message):
        if not held and is_opening(role, message):
            held.append(message)
            return []
        return [message]

    async with Middle(relay, hold) as middle, two(middle.url, token, phone, agent) as (phone, agent):
        while not held:
            await asyncio.sleep(0.01)
        middle.cut("phone")
        await asyncio.gather(phone.secure(), agent.secure())
        await talk(phone, agent, 1)
        await middle.inject("relay", held[0])
        await agent.secure()
        yield middle, phone, agent


@pytest.mark.parametrize("first", ["phone", "agent"])
@pytest.mark.parametrize(("phone", "agent"), PAIRS)
async def test_a_phone_opens_anew_when_its_agent_has_other_keys(relay, phone, agent, first):
    async with with_other_keys(relay, phone, agent) as (_middle, phone, agent):
        if first == "phone":
            # The agent refuses it, unless the phone has seen first that the agent's `ack` does not open.
            await phone.send("chat.send", {"text": "lost"})
        else:
            await agent.send("chat.stream", {"delta": "lost"})
        await phone.event("refused", "error")
        await asyncio.gather(phone.secure(), agent.secure())
        await pass_over_lost(phone, agent)
        await talk(phone, agent)


async def pass_over_lost(*ends):
    """Where both ends resume, what was sealed with the wrong keys comes again."""
    for sender, receiver in (ends, ends[::-1]):
        await sender.send("chat.mark", {})
        while (event := await receiver.event("message"))["type"] != "chat.mark":
            assert "lost" in event["payload"].values()


@pytest.mark.parametrize("phone", MAKES["phone"])
async def test_complaints_of_nobody_in_particular_make_a_phone_open_no_more_than_every_five_seconds(relay, phone):
    token = await relay.token()
    times = []

    def note(role, message):
        if is_opening(role, message):
            times.append(asyncio.get_running_loop().time())
        return [message]

    complaint = {"type": "chat.error", "id": "x", "payload": {"code": "DECRYPTION_FAILED", "message": "says who"}}
    async with Middle(relay, note) as middle, two(middle.url, token, phone, "python") as (phone, agent):
        await asyncio.gather(phone.secure(), agent.secure())
        for _ in range(2):
            for _ in range(5):
                await middle.inject("phone", complaint)
            await asyncio.gather(phone.secure(), agent.secure())
            await talk(phone, agent, 1)
    assert len(times) == 3  # the first is that of the beginning
    assert times[2] - times[1] > 4.5


# ---- Coming back ----


@pytest.mark.parametrize("phone", MAKES["phone"])
async def test_a_stream_is_read_on_while_the_phone_comes_back(relay, phone):
    """An agent goes on with the old keys until it has answered a phone, and a phone reads them until then.

    One that resumes waits instead, and sends it all again.
    """
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token, phone, "old") as (phone, agent):
        await asyncio.gather(phone.secure(), agent.secure())
        held = asyncio.Event()  # the opening after the loss is kept back until some of the stream has come

        def hold(role, message):
            async def later():
                await held.wait()
                return message

            return [later() if is_opening(role, message) else message]

        middle.rewrite = hold
        middle.cut("phone")
        await agent.event("online")
        for seq in range(5):
            await agent.send("chat.stream", {"delta": WORD, "seq": seq})
        try:
            for seq in range(5):
                event = await phone.event("message", "refused")
                assert event["event"] == "message" and event["payload"]["seq"] == seq, event
        finally:
            held.set()
        await asyncio.gather(phone.secure(), agent.secure())
        await talk(phone, agent, 1)


RECONNECTS = 200


@pytest.mark.parametrize(("phone", "agent"), [("python", "python"), ("rust", "rust")])
async def test_two_hundred_reconnects_during_a_stream(relay, phone, agent):
    """What arrives is what was sent, in order and once; at the end both are verified, and the answer is whole."""
    token = await relay.token()
    async with Middle(relay) as middle, two(middle.url, token, phone, agent) as (phone, agent):
        await asyncio.gather(phone.secure(), agent.secure())
        await phone.send("chat.send", {"text": "tell me much"})
        await agent.message("chat.send")
        cutting = asyncio.Event()

        async def stream():
            seq = 0
            while not cutting.is_set():
                seq += 1
                await agent.send("chat.stream", {"delta": WORD, "seq": seq})
                await asyncio.sleep(0.002)
            await agent.send("chat.done", {"seq": seq + 1})
            return seq

        async def take():
            seqs = []
            while True:
                event = await phone.event("message")
                seqs.append(event["payload"]["seq"])
                if event["type"] == "chat.done":
                    return seqs

        async def cut():
            for number in range(RECONNECTS):
                role = ("phone", "agent")[number % 2]
                while not middle.cut(role):
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.01 if number % 10 else 0.1)
            await asyncio.sleep(0.3)  # some more of the stream, over the last connection
            cutting.set()

        sent, seqs, _ = await asyncio.gather(stream(), take(), cut())
        assert seqs == sorted(set(seqs)), "in order, and each once"
        assert seqs[-1] == sent + 1
        assert len(seqs) > RECONNECTS / 10
        await talk(phone, agent, 1)
        assert not any(WORD in text for _, text in middle.seen)


async def test_the_example_of_the_clients_readme_works(relay, tmp_path):
    text = (ROOT / "clients/python/README.md").read_text()
    [code] = [block.split("```")[0] for block in text.split("```python\n") if "async def main(relay, token)" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "example.py").write_text(code)
    token = await relay.token()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "clients/python"), "no_proxy": "*"}
    command = [sys.executable, str(tmp_path / "example.py"), relay.url, token]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        link = coralmux.Link.parse((await asyncio.wait_for(process.stdout.readline(), 20)).decode())
        async with PythonEnd("phone", link) as phone:
            assert (await phone.secure())[0] == 2
            await phone.send("chat.send", {"text": "hello there"})
            assert await phone.message("chat.stream") == {"delta": "HELLO ", "seq": 1}
            assert await phone.message("chat.stream") == {"delta": "THERE ", "seq": 2}
            assert await phone.message("chat.done") == {"full_text": "HELLO THERE"}
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("agent", MAKES["agent"])
async def test_the_lengths_of_pieces_tell_no_words_apart(relay, agent, secret):
    token = await relay.token()
    words = ["I", "yes", "nonetheless", "\U0001f980" * 8, "\"\n"]
    async with Middle(relay) as middle:
        async with end("python", "phone", middle.url, token, secret) as phone:
            async with end(agent, "agent", middle.url, token, secret) as agent:
                await asyncio.gather(phone.secure(), agent.secure())
                for word in words:
                    await agent.send("chat.stream", {"delta": word, "seq": 1})
                    assert (await phone.message("chat.stream"))["delta"] == word
        pieces = [json.loads(text) for role, text in middle.seen if role == "agent"]
        lengths = [len(piece["payload"]["ciphertext"]) for piece in pieces if piece["type"] == "chat.stream"]
    assert len(lengths) == len(words) and len(set(lengths)) == 1, lengths
