"""Version 3: what e2e_v3.json holds. Written from PROTOCOL.md, as make.py is."""

import hashlib
import hmac
import json

from basics import TOKEN, b64, b64url, dh, fixed, noise_hkdf, public, refused_alike
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

K = fixed("v3 k")
AGENT, DEVICE = fixed("v3 agent static"), fixed("v3 device static")
DEVICE_KEY = fixed("v3 device key")
R = fixed("v3 r")
UUIDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(8)]


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hmac256(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def id_of(key):
    return sha256(key)[:8].hex()


DEVICE_ID = id_of(DEVICE_KEY)


# ---- Noise, revision 34: the symmetric state, and the two patterns ----


class Symmetric:
    def __init__(self, name, prologue):
        self.ck = self.h = name  # it has just the length of a hash
        self.mix_hash(prologue)

    def mix_hash(self, data):
        self.h = sha256(self.h, data)

    def mix_key(self, material):
        self.ck, self.key = noise_hkdf(self.ck, material, 2)
        self.n = 0

    def mix_psk(self, psk):
        self.ck, extra, self.key = noise_hkdf(self.ck, psk, 3)
        self.n = 0
        self.mix_hash(extra)

    def mix_ephemeral(self, key):
        self.mix_hash(key)
        self.mix_key(key)
        return key

    def encrypt(self, text):
        sealed = AESGCM(self.key).encrypt(bytes(4) + self.n.to_bytes(8, "big"), text, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def split(self):
        return noise_hkdf(self.ck, b"", 2)


def enrolment(
    k=K, token=TOKEN, device_id=DEVICE_ID, agent=AGENT, device=DEVICE, r=R, told=None, committed=None, about=None,
    agent_ephemeral="v3 enrolment agent ephemeral", prologue=None, payload_2=b"", payload_3=None,
):
    """All of one enrolment, computed from both ends' private keys. What differs from the right one is named."""
    de, ae = fixed("v3 enrolment device ephemeral"), fixed(agent_ephemeral)
    if prologue is None:
        prologue = f"coralmux-relay-e2e-v3:enrol:{token}:{device_id}".encode()
    commitment = committed or sha256(b"coralmux-v3-commit", public(device), r)
    if payload_3 is None:
        about = about or {"name": "Tablet", "platform": "web"}
        payload_3 = json.dumps({"r": b64url(told or r), **about}, separators=(",", ":"), ensure_ascii=False).encode()
    state = Symmetric(b"Noise_XXpsk0_25519_AESGCM_SHA256", prologue)
    state.mix_psk(k)  # -> psk, e
    message_1 = state.mix_ephemeral(public(de)) + state.encrypt(commitment)
    message_2 = state.mix_ephemeral(public(ae))  # <- e, ee, s, es
    state.mix_key(dh(ae, public(de)))
    message_2 += state.encrypt(public(agent))
    state.mix_key(dh(agent, public(de)))
    message_2 += state.encrypt(payload_2)
    h2 = state.h
    message_3 = state.encrypt(public(device))  # -> s, se
    state.mix_key(dh(device, public(ae)))
    message_3 += state.encrypt(payload_3)
    return {
        "prologue": prologue, "commitment": commitment, "messages": [message_1, message_2, message_3],
        "payload_3": payload_3, "h2": h2, "h": state.h, "split": state.split(),
    }


def session(psk, number, token=TOKEN, device_id=DEVICE_ID, agent=AGENT, device=DEVICE, prologue=None):
    """All of one session's handshake, as above."""
    de, ae = fixed(f"v3 session {number} device ephemeral"), fixed(f"v3 session {number} agent ephemeral")
    if prologue is None:
        prologue = f"coralmux-relay-e2e-v3:session:{token}:{device_id}".encode()
    state = Symmetric(b"Noise_KKpsk0_25519_AESGCM_SHA256", prologue)
    state.mix_hash(public(device))
    state.mix_hash(public(agent))
    state.mix_psk(psk)  # -> psk, e, es, ss
    message_1 = state.mix_ephemeral(public(de))
    state.mix_key(dh(de, public(agent)))
    state.mix_key(dh(device, public(agent)))
    message_1 += state.encrypt(b"")
    message_2 = state.mix_ephemeral(public(ae))  # <- e, ee, se
    state.mix_key(dh(ae, public(de)))
    state.mix_key(dh(ae, public(device)))
    message_2 += state.encrypt(b"")
    return {"prologue": prologue, "messages": [message_1, message_2], "h": state.h, "split": state.split()}


def code_of(h2, device, r):
    return f"{int.from_bytes(sha256(b'coralmux-v3-code', h2, device, r)[:8], 'big') % 1_000_000:06}"


# ---- Keys and messages ----


class Keys:
    """What follows from a handshake."""

    def __init__(self, handshake):
        k1, k2 = handshake["split"]
        self.sid = sha256(b"coralmux-v3-sid", handshake["h"])[:8]
        self.chains = {"device": hmac256(k1, b"chain"), "agent": hmac256(k2, b"chain")}

    def at(self, sender, number):
        ck = self.chains[sender]
        for _ in range(number):
            ck = hmac256(ck, b"\2")
        return ck

    def sealed(self, sender, number, text="{}", kind="chat.send", envelope=None, device_id=DEVICE_ID, sid=None, i=None):
        """A message's parts. `sid` and `i`: what its payload claims."""
        ck = self.at(sender, number)
        mk, nonce_key = hmac256(ck, b"\1"), hmac256(ck, b"\3")
        random = fixed(f"v3 message {sender} {number}")
        associated = associated_data(device_id, self.sid, number, kind, envelope)
        nonce = hmac256(nonce_key, random, associated, text.encode())[:12]
        payload = {
            "enc": True,
            "v": 3,
            "s": b64url(sid or self.sid),
            "i": number if i is None else i,
            "ciphertext": b64(AESGCM(mk).encrypt(nonce, text.encode(), associated)),
            "nonce": b64(nonce),
        }
        return {
            "ck": ck.hex(), "mk": mk.hex(), "nonce_key": nonce_key.hex(), "random": random.hex(),
            "associated": associated.hex(), "nonce": nonce.hex(), "payload": payload,
        }

    def hex(self):
        return {"sid": self.sid.hex(), "chain_device": self.chains["device"].hex(), "chain_agent": self.chains["agent"].hex()}


def associated_data(device_id, sid, number, kind, envelope):
    place = device_id.encode() + sid + number.to_bytes(8, "big")
    return b"coralmux-v3\0" + place + kind.encode() + b"\0" + (envelope or "").encode()


def messages(keys):
    """Of each direction the first ones, one after the write-ahead of 64, and what is odd in type and id."""
    made = []
    for sender in ("device", "agent"):
        for number, kind, envelope, text in [
            (0, "ack", None, '{"a":{"e":"","n":0},"r":true}'),
            (1, "chat.send", UUIDS[1], '{"text":"h\u00e4llo \u6f22\u5b57 \U0001f40b"}'),
            (2, "\u00e4rger.\u6f22", "a\0b", "{}"),
            (64, "file.put", "", json.dumps({"data": "x" * 300}, separators=(",", ":"))),
        ]:
            head = {"from": sender, "i": number, "type": kind, "id": envelope, "plaintext": text}
            made.append(head | keys.sealed(sender, number, text, kind, envelope))
    return made


# ---- What reaches an agent, and what it makes of it ----


class Script:
    """Steps of one agent, in order. It holds the enrolment's session from the start, confirmed."""

    def __init__(self, sessions):
        self.sessions, self.steps, self.at, self.sends_with = sessions, [], 0, 0

    def add(self, step, **more):
        sid = self.sessions[self.sends_with][0].sid.hex()
        self.steps.append({"step": step, "at_ms": self.at} | more | {"sends_with": sid})

    def opening(self, number):
        ephemeral = fixed(f"v3 session {number} agent ephemeral").hex()
        one, two = self.sessions[number][1]["messages"]
        self.add("opening", ephemeral=ephemeral, noise=b64(one), answer=b64(two))

    def good(self, number, i, confirms=False, skipped=0, text="{}", kind="chat.send", envelope=None):
        if confirms:
            self.sends_with = number
        payload = self.sessions[number][0].sealed("device", i, text, kind, envelope)["payload"]
        arrival = {"type": kind, "id": envelope, "payload": payload, "opens": text, "skipped": skipped}
        self.add("arrival", **arrival, confirms=confirms)

    def bad(self, reason, why, payload, kind="chat.send", envelope=None, sign=None):
        sign = reason in ("unknown session", "too far", "too soon", "forged") if sign is None else sign
        arrival = {"type": kind, "id": envelope, "payload": payload, "opens": None}
        self.add("arrival", **arrival, reason=reason, why=why, sign=sign)


def arrivals(sessions, unknown, stranger):
    script = Script(sessions)
    s1, _, s3 = (keys for keys, _ in sessions)

    def of(session, number, **more):
        return sessions[session][0].sealed("device", number, **more)["payload"]

    script.add("connected")
    script.good(0, 0)
    script.bad("repeated", "the mailbox repeats", of(0, 0), sign=False)
    script.bad("forged", "claims a session before it is there", of(1, 0, sid=s1.sid, i=1))
    script.bad("unknown session", "a session before its opening", of(1, 0))
    script.opening(1)
    script.good(0, 1)
    script.bad("forged", "does not confirm", of(1, 0, kind="chat.stream"))
    script.good(1, 0, confirms=True)
    script.good(0, 2)
    script.opening(2)
    script.bad("repeated", "the mailbox repeats", of(1, 0), sign=False)
    script.good(2, 1, confirms=True, skipped=1)
    script.good(1, 1)
    script.good(0, 4, skipped=1)
    script.bad("repeated", "wound past", of(0, 3), sign=False)
    script.add("drained")
    for number in (0, 1):
        script.bad("unknown session", "older than the newest that has opened, and drained", of(number, 9))
    script.bad("repeated", "live", of(2, 1), sign=True)
    script.bad("unknown session", "never agreed", unknown.sealed("device", 0)["payload"])
    good = of(2, 2)
    for why, payload in refused_alike(good):
        bits = why.startswith(("a bit", "the last", "shorter", "nothing"))
        script.bad("forged" if bits else "malformed", why, payload)
    script.bad("in clear", "no object", None)
    script.bad("in clear", "in clear", {"text": "hi"})
    script.bad("in clear", "enc is not true", good | {"enc": 1})
    script.bad("malformed", "version 2", {"enc": True, "ciphertext": good["ciphertext"], "nonce": b64(bytes(12))})
    script.bad("malformed", "version 2, and says so", good | {"v": 2})
    script.bad("malformed", "the version is a string", good | {"v": "3"})
    for why, i in [("negative", -1), ("a fraction", 2.5), ("2^53", 2**53), ("a string", "2"), ("null", None)]:
        script.bad("malformed", f"i is {why}", good | {"i": i})
    script.bad("malformed", "no i", {name: value for name, value in good.items() if name != "i"})
    script.bad("malformed", "no s", {name: value for name, value in good.items() if name != "s"})
    script.bad("malformed", "s has 7 bytes", good | {"s": b64url(s3.sid[:7])})
    script.bad("malformed", "s is hex", good | {"s": s3.sid.hex()})
    loose = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = loose[loose.index(good["s"][-1]) + 1]
    script.bad("malformed", "s with bits that stand for nothing", good | {"s": good["s"][:-1] + last})
    script.bad("forged", "another i than it was made with", good | {"i": 3})
    script.bad("forged", "another session than it was made in", of(1, 2, sid=s3.sid))
    script.bad("forged", "the other direction", s3.sealed("agent", 2)["payload"])
    script.bad("forged", "of another device", stranger.sealed("device", 2, sid=s3.sid)["payload"])
    script.bad("forged", "for another device", of(2, 2, device_id=id_of(b"another")))
    script.bad("forged", "another type", good, kind="chat.stream")
    script.bad("forged", "another id", of(2, 2, envelope=UUIDS[1]), envelope=UUIDS[2])
    script.bad("forged", "its id taken away", of(2, 2, envelope=UUIDS[1]))
    script.bad("forged", "an id added", good, envelope=UUIDS[1])
    script.bad("malformed", "a type with U+0000", of(2, 2, kind="a\0b"), kind="a\0b")
    script.bad("malformed", "type and id cut elsewhere", of(2, 2, kind="a", envelope="b\0c"), kind="a\0b", envelope="c")
    script.bad("not JSON", "not JSON", of(2, 2, text="{"), sign=False)
    script.good(2, 2)
    script.good(2, 4, skipped=1)
    script.good(2, 69, skipped=64)
    script.bad("too far", "4,097 ahead", of(2, 70 + 4097))
    script.at += 5
    script.bad("forged", "65 ahead, and another type", of(2, 70 + 65), kind="chat.stream")
    script.at += 999
    script.bad("too soon", "65 ahead within a second of one that did not open", of(2, 70 + 65))
    script.good(2, 70 + 64, skipped=64)
    script.bad("too soon", "65 ahead within a second of one that did not open", of(2, 135 + 65))
    script.at += 1
    script.good(2, 135 + 65, skipped=65)
    script.good(2, 201 + 4095, skipped=4095)
    script.good(2, 4297 + 4096, skipped=4096)
    script.bad("too far", "4,097 ahead", of(2, 8394 + 4097))
    script.bad("repeated", "live", of(2, 4297), sign=True)
    script.add("connected")
    script.bad("repeated", "in a drain", of(2, 8393), sign=False)
    script.good(2, 8394, envelope=UUIDS[3])
    return script.steps


# ---- Handshake messages that are refused ----


def altered(message):
    return [
        ("a bit of the key is another", bytes([message[0] ^ 1]) + message[1:]),
        ("a bit of the tag is another", message[:-1] + bytes([message[-1] ^ 1])),
        ("cut short", message[:-1]),
        ("too long", message + b"\0"),
        ("no tag", message[:32]),
        ("empty", b""),
    ]


def listed(cases):
    return [{"why": why, "noise": b64(message)} for why, message in cases]


def refused_enrolment(right):
    """For each of the three messages others that must not be taken for it."""
    wrong = [
        ("another k", {"k": fixed("another k")}),
        ("another token", {"token": TOKEN[:-1] + "0"}),
        ("another device", {"device_id": id_of(b"another")}),
        ("no prologue", {"prologue": b""}),
        ("a session's prologue", {"prologue": right["prologue"].replace(b":enrol:", b":session:")}),
    ]
    lists = [
        [(why, enrolment(**how)["messages"][index]) for why, how in wrong] + altered(right["messages"][index])
        for index in range(3)
    ]
    other, stranger = fixed("another r"), fixed("another static")

    def third(**how):
        return enrolment(**how)["messages"][2]

    def about(name="Tablet", platform="web"):
        return third(about={"name": name, "platform": platform})

    lists[0].append(("a session's opening", bytes(48)))
    lists[1] += [
        ("an agent with another static key", enrolment(agent=stranger)["messages"][1]),
        ("a payload", enrolment(payload_2=b"{}")["messages"][1]),
        ("the first message", right["messages"][0]),
    ]
    r = b64url(R)
    lists[2] += [
        ("another r than was committed to", third(r=other, committed=right["commitment"])),
        ("another static key than was committed to", third(device=stranger, committed=right["commitment"])),
        ("tells another r", third(told=other)),
        ("no payload", third(payload_3=b"")),
        ("not JSON", third(payload_3=b"{")),
        ("an array", third(payload_3=f'["{r}","Tablet","web"]'.encode())),
        ("no r", third(payload_3=b'{"name":"Tablet","platform":"web"}')),
        ("r of 31 bytes", third(payload_3=f'{{"r":"{b64url(R[:31])}","name":"Tablet","platform":"web"}}'.encode())),
        ("no name", third(payload_3=f'{{"r":"{r}","platform":"web"}}'.encode())),
        ("no platform", third(payload_3=f'{{"r":"{r}","name":"Tablet"}}'.encode())),
        ("a name of 65 characters", about(name="x" * 65)),
        ("a platform of 65 characters", about(platform="x" * 65)),
        ("a control character", about(name="a\x1b[2J")),
        ("a control character of ISO 8859-1", about(name="a\x9b2J")),
        ("a line separator", about(name="a\u2028b")),
        ("a bidirectional override", about(name="a\u202eb")),
        ("a bidirectional mark", about(platform="\u200fweb")),
        ("longer than 2,048 bytes", third(payload_3=right["payload_3"] + b" " * 2000)),
    ]
    second = enrolment(agent_ephemeral="another agent ephemeral")["messages"][1]
    return [listed(cases) for cases in lists] + [listed([("the right agent's, with other keys", second)])]


def refused_session(psk, right):
    wrong = [
        ("another psk", {"psk": fixed("another psk")}),
        ("another token", {"token": TOKEN[:-1] + "0"}),
        ("another device id", {"device_id": id_of(b"another")}),
        ("another device's static key", {"device": fixed("another static")}),
        ("another agent's static key", {"agent": fixed("another static")}),
        ("an enrolment's prologue", {"prologue": right["prologue"].replace(b":session:", b":enrol:")}),
    ]
    return [
        listed([(why, session(**({"psk": psk, "number": 1} | how))["messages"][index]) for why, how in wrong]
               + altered(right["messages"][index]) + [("the other message", right["messages"][1 - index])])
        for index in (0, 1)
    ]


def version_3():
    enrol = enrolment()
    device, agent = public(DEVICE), public(AGENT)
    k1, k2 = enrol["split"]
    psk = HKDF(hashes.SHA256(), 32, enrol["h"], b"coralmux-v3-psk").derive(k1 + k2)
    handshakes = [enrol, session(psk, 1), session(psk, 2)]
    sessions = [(Keys(handshake), handshake) for handshake in handshakes]
    first, second = handshakes[1]["messages"]
    # A code that begins with zeros: the first r for which it is so.
    zeros = next(r for r in (fixed(f"v3 r {n}") for n in range(10_000)) if code_of(enrol["h2"], device, r) < "001000")
    codes = [(enrol["h2"], R), (enrol["h2"], zeros), (fixed("v3 h2"), R)]
    invite = HKDF(hashes.SHA256(), 16, None, b"coralmux-v3-invite").derive(K)
    a = sha256(b"coralmux-v3-agent", agent)[:16]
    refused = refused_enrolment(enrol)
    refused_opening, refused_answer = refused_session(psk, handshakes[1])
    stranger = Keys(session(fixed("another psk"), 3))
    relay = "wss%3A%2F%2Frelay.example%2Fws"
    return {
        "about": "End-to-end encryption, version 3: devices. Hex, unless it is a payload or a Noise message of one.",
        "token": TOKEN,
        "k": K.hex(),
        "invite": b64url(invite),
        "invite_sha256": b64(sha256(invite)),
        "agent_static_private": AGENT.hex(),
        "agent_static_public": agent.hex(),
        "a": b64url(a),
        "links": {
            "relay": "wss://relay.example/ws",
            "for_apps": f"openclaw://pair?token={TOKEN}&relay={relay}&k={b64url(K)}&a={b64url(a)}",
            "for_browsers": f"https://relay.example/#token={TOKEN}&k={b64url(K)}&a={b64url(a)}",
        },
        "device_key": DEVICE_KEY.hex(),
        "device_id": DEVICE_ID,
        "device_static_private": DEVICE.hex(),
        "device_static_public": device.hex(),
        "enrolment": {
            "device_ephemeral_private": fixed("v3 enrolment device ephemeral").hex(),
            "agent_ephemeral_private": fixed("v3 enrolment agent ephemeral").hex(),
            "prologue": enrol["prologue"].decode(),
            "r": R.hex(),
            "commitment": enrol["commitment"].hex(),
            "payload_3": enrol["payload_3"].decode(),
            "messages": [message.hex() for message in enrol["messages"]],
            "ids": UUIDS[5:7],
            "key_exchange": [
                {"e2e": 3, "enrol": 1, "noise": b64(enrol["messages"][0])},
                {"e2e": 3, "enrol": 2, "noise": b64(enrol["messages"][1]), "re": UUIDS[5]},
                {"e2e": 3, "enrol": 3, "noise": b64(enrol["messages"][2])},
            ],
            "h2": enrol["h2"].hex(),
            "code": code_of(enrol["h2"], device, R),
            "h": enrol["h"].hex(),
            "split": [k1.hex(), k2.hex()],
            "psk": psk.hex(),
            **sessions[0][0].hex(),
        },
        "codes": [
            {"h2": h2.hex(), "device_static_public": device.hex(), "r": r.hex(), "code": code_of(h2, device, r)}
            for h2, r in codes
        ],
        "session": {
            "device_ephemeral_private": fixed("v3 session 1 device ephemeral").hex(),
            "agent_ephemeral_private": fixed("v3 session 1 agent ephemeral").hex(),
            "prologue": handshakes[1]["prologue"].decode(),
            "messages": [first.hex(), second.hex()],
            "opening_id": UUIDS[7],
            "key_exchange": [
                {"e2e": 3, "noise": b64(first)},
                {"e2e": 3, "noise": b64(second), "re": UUIDS[7]},
            ],
            "h": handshakes[1]["h"].hex(),
            "split": [key.hex() for key in handshakes[1]["split"]],
            **sessions[1][0].hex(),
        },
        "messages": messages(sessions[1][0]),
        "arrivals": arrivals(sessions, Keys(session(psk, 3)), stranger),
        "refused_message_1": refused[0],
        "refused_message_2": refused[1],
        "refused_message_3": refused[2],
        "refused_second_message_2": refused[3],
        "refused_opening": refused_opening,
        "refused_answer": refused_answer,
    }
