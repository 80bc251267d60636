"""Makes e2e_v1.json to e2e_v3.json and resume.json: the test vectors of the end-to-end encryption and of what it
carries.

    python clients/vectors/make.py            writes them
    python clients/vectors/make.py --check    exit code 1 where they differ from those that are there

It needs `cryptography` alone, and shares no code with the clients: it is written from the text of PROTOCOL.md and of
the Noise specification (revision 34), so that a fault of theirs cannot hide in it. All keys are fixed. The scripted
cases of resume.json and all of version 3 are in the modules beside this one.
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

import resume_plaintexts as plaintexts
import resume_receiver as receiver
import resume_sender as sender
from basics import TOKEN, b64, dh, fixed, noise_hkdf, public, refused_alike
from version3 import version_3

FOLDER = pathlib.Path(__file__).resolve().parent
OPENING_ID = "550e8400-e29b-41d4-a716-446655440000"
PAYLOADS = [
    ("chat.send", "{}"),
    ("chat.send", '{"text":"hello"}'),
    ("chat.stream", '{"delta":"h\u00e4llo \u6f22\u5b57 \U0001f40b","seq":1}'),
    ("file.put", json.dumps({"data": "x" * 300}, separators=(",", ":"))),
]


def sealed(key, nonce, text, associated=b""):
    ciphertext = AESGCM(key).encrypt(nonce, text.encode(), associated)
    return {"enc": True, "ciphertext": b64(ciphertext), "nonce": b64(nonce)}


# ---- Version 1 ----


def fingerprint(one, other):
    keys = min(one, other) + max(one, other)
    digest = PBKDF2HMAC(hashes.SHA256(), 16, b"coralmux-fingerprint-v1", 10_000).derive(keys)
    groups = [int.from_bytes(digest[at : at + 4], "big") % 100_000 for at in (0, 4, 8, 12)]
    return " ".join(f"{group:05}" for group in groups)


def pair_v1(number):
    phone, agent = fixed(f"v1 phone {number}"), fixed(f"v1 agent {number}")
    shared = dh(phone, public(agent))
    key = HKDF(hashes.SHA256(), 32, b"openclaw-relay-e2e-v1", b"chat-encryption").derive(shared)
    return key, {
        "phone_private": phone.hex(),
        "phone_public": public(phone).hex(),
        "agent_private": agent.hex(),
        "agent_public": public(agent).hex(),
        "shared": shared.hex(),
        "key": key.hex(),
        "fingerprint": fingerprint(public(phone), public(agent)),
        "key_exchange": {"phone": {"pubkey": b64(public(phone))}, "agent": {"pubkey": b64(public(agent))}},
    }


def version_1():
    key, first = pair_v1(1)
    messages = []
    for number, (kind, text) in enumerate(PAYLOADS):
        nonce = fixed(f"v1 nonce {number}")[:12]
        messages.append({"type": kind, "nonce": nonce.hex(), "plaintext": text, "payload": sealed(key, nonce, text)})
    refused = refused_alike(messages[1]["payload"]) + [
        ("made with associated data", sealed(key, fixed("v1 nonce 9")[:12], "{}", b"chat.send")),
        ("not JSON", sealed(key, fixed("v1 nonce 10")[:12], "{")),
        ("the key of another pair", sealed(pair_v1(2)[0], fixed("v1 nonce 11")[:12], "{}")),
    ]
    prime = 2**255 - 19
    low_order = [
        (0).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (prime - 1).to_bytes(32, "little"),
        prime.to_bytes(32, "little"),
        (prime + 1).to_bytes(32, "little"),
    ]
    wrong_length = [b"", bytes([9] * 31), bytes([9] * 33)]
    return {
        "about": "End-to-end encryption, version 1. Hex, unless it is a payload. The messages are of the first pair.",
        "pairs": [first, pair_v1(2)[1], pair_v1(3)[1]],
        "messages": messages,
        "refused": [{"why": why, "payload": payload} for why, payload in refused],
        "refused_public_keys": [b64(key) for key in low_order + wrong_length],
    }


# ---- Version 2: Noise_NNpsk0_25519_AESGCM_SHA256 ----


def handshake(psk, prologue, phone, agent):
    """Both messages, the handshake's hash and the two keys, computed from both private keys at once."""
    ck = h = b"Noise_NNpsk0_25519_AESGCM_SHA256"
    h = hashlib.sha256(h + prologue).digest()
    # -> psk, e
    ck, extra, key = noise_hkdf(ck, psk, 3)
    h = hashlib.sha256(h + extra).digest()
    h = hashlib.sha256(h + public(phone)).digest()
    ck, key = noise_hkdf(ck, public(phone), 2)
    tag = AESGCM(key).encrypt(bytes(12), b"", h)
    h = hashlib.sha256(h + tag).digest()
    message_1 = public(phone) + tag
    # <- e, ee
    h = hashlib.sha256(h + public(agent)).digest()
    ck, key = noise_hkdf(ck, public(agent), 2)
    ck, key = noise_hkdf(ck, dh(agent, public(phone)), 2)
    tag = AESGCM(key).encrypt(bytes(12), b"", h)
    h = hashlib.sha256(h + tag).digest()
    message_2 = public(agent) + tag
    return message_1, message_2, h, noise_hkdf(ck, b"", 2)


def agreed_fields(agreed, fillers):
    """A handshake and what its three messages are made with, as the vectors have them."""
    message_1, message_2, digest, (to_agent, to_phone) = agreed
    return {
        "message_1": message_1.hex(),
        "message_2": message_2.hex(),
        "handshake_hash": digest.hex(),
        "key_phone_to_agent": to_agent.hex(),
        "key_agent_to_phone": to_phone.hex(),
        "fillers": {name: filler.hex() for name, filler in fillers.items()},
        "opening_id": OPENING_ID,
    }


def conversation(agreed, said):
    """What each role says first, (type, plaintext) by role, sealed."""
    *_, keys = agreed
    messages = []
    for role, key in zip(("phone", "agent"), keys, strict=True):
        for number, (kind, text) in enumerate(said[role]):
            payload = sealed(key, counter(number), text, kind.encode())
            messages.append({"from": role, "type": kind, "counter": number, "plaintext": text, "payload": payload})
    return messages


def counter(number):
    return bytes(4) + number.to_bytes(8, "big")


def arrivals(key, back):
    """What reaches the agent after the handshake, in this order, and what it makes of it."""

    def from_phone(number, text="{}", kind="chat.send"):
        return sealed(key, counter(number), text, kind.encode())

    def good(payload, opens, missed=0, kind="chat.send"):
        return {"type": kind, "payload": payload, "opens": opens, "missed": missed}

    def bad(why, payload, kind="chat.send"):
        return {"type": kind, "payload": payload, "opens": None, "why": why}

    first = from_phone(0, '{"text":"hello"}')
    return [
        bad("in clear", {"text": "hi"}),
        *(bad(why, payload) for why, payload in refused_alike(first)),
        bad("of another type", first, kind="chat.stream"),
        bad("without associated data", sealed(key, counter(0), "{}")),
        bad("the key of the other direction", sealed(back, counter(0), "{}", b"chat.send")),
        bad("the nonce does not begin with zeros", sealed(key, b"\1" + counter(0)[1:], "{}", b"chat.send")),
        good(first, '{"text":"hello"}'),
        bad("replayed", first),
        good(from_phone(1), "{}"),
        good(from_phone(4, '{"n":4}'), '{"n":4}', missed=2),
        bad("out of order", from_phone(3)),
        bad("replayed", from_phone(1)),
        bad("another counter than it was made with", from_phone(7) | {"nonce": b64(counter(8))}),
        bad("not JSON", from_phone(5, "{")),
        good(from_phone(5), "{}"),
        good(from_phone(6, '{"x":1}', "made.up"), '{"x":1}', kind="made.up"),
        bad("in clear", {}),
        good({"code": "PEER_OFFLINE", "message": "."}, '{"code":"PEER_OFFLINE","message":"."}', kind="chat.error"),
        good(from_phone(7, '{"code":"X"}', "chat.error"), '{"code":"X"}', kind="chat.error"),
        bad("beyond the last counter", from_phone(2**32)),
        bad("beyond the last counter", from_phone(2**64 - 1)),
        good(from_phone(2**32 - 1), "{}", missed=2**32 - 9),
        bad("replayed", from_phone(2**32 - 1)),
    ]


def refused_handshakes(psk, prologue, phone, agent):
    """For each of the two messages: others that must not be taken for it."""
    good = handshake(psk, prologue, phone, agent)
    of_another_secret = handshake(fixed("another secret"), prologue, phone, agent)
    of_another_token = handshake(psk, prologue[:-1] + b"0", phone, agent)
    without_prologue = handshake(psk, b"", phone, agent)
    return [
        [
            {"why": why, "noise": b64(message)}
            for why, message in [
                ("another secret", of_another_secret[index]),
                ("another token", of_another_token[index]),
                ("no prologue", without_prologue[index]),
                ("a bit of the key is another", bytes([good[index][0] ^ 1]) + good[index][1:]),
                ("a bit of the tag is another", good[index][:-1] + bytes([good[index][-1] ^ 1])),
                ("cut short", good[index][:-1]),
                ("too long", good[index] + b"\0"),
                ("no tag", good[index][:32]),
                ("empty", b""),
                ("the other message", good[1 - index]),
            ]
        ]
        for index in (0, 1)
    ]


def version_2():
    psk = fixed("v2 pairing secret")
    phone, agent = fixed("v2 phone ephemeral"), fixed("v2 agent ephemeral")
    prologue = f"coralmux-relay-e2e-v2:{TOKEN}".encode()
    agreed = handshake(psk, prologue, phone, agent)
    message_1, message_2, _, (to_agent, to_phone) = agreed
    fillers = {name: fixed(f"v2 filler {name}") for name in ("announcement", "opening", "answer")}
    k = base64.urlsafe_b64encode(psk).decode().rstrip("=")
    refused = refused_handshakes(psk, prologue, phone, agent)
    return {
        "about": "End-to-end encryption, version 2: Noise_NNpsk0_25519_AESGCM_SHA256. Hex, unless it is a payload.",
        "token": TOKEN,
        "secret": psk.hex(),
        "prologue": prologue.decode(),
        "links": {
            "relay": "wss://relay.example/ws",
            "for_apps": f"openclaw://pair?token={TOKEN}&relay=wss%3A%2F%2Frelay.example%2Fws&k={k}",
            "for_browsers": f"https://relay.example/#token={TOKEN}&k={k}",
        },
        "phone_ephemeral_private": phone.hex(),
        "phone_ephemeral_public": public(phone).hex(),
        "agent_ephemeral_private": agent.hex(),
        "agent_ephemeral_public": public(agent).hex(),
        **agreed_fields(agreed, fillers),
        "key_exchange": {
            "announcement": {"pubkey": b64(fillers["announcement"]), "e2e": 2},
            "opening": {"pubkey": b64(fillers["opening"]), "e2e": 2, "noise": b64(message_1)},
            "answer": {"pubkey": b64(fillers["answer"]), "e2e": 2, "noise": b64(message_2), "re": OPENING_ID},
        },
        "messages": conversation(agreed, {"phone": PAYLOADS, "agent": PAYLOADS}),
        "arrivals": arrivals(to_agent, to_phone),
        "refused_message_1": refused[0],
        "refused_message_2": refused[1],
    }


# ---- Resume ----


def resume():
    psk = fixed("v2 pairing secret")
    phone, agent = fixed("v2 phone ephemeral"), fixed("v2 agent ephemeral")
    plain = f"coralmux-relay-e2e-v2:{TOKEN}".encode()
    prologue = plain + b":rs1"
    agreed = handshake(psk, prologue, phone, agent)
    message_1, message_2, *_ = agreed
    fillers = {name: fixed(f"rs filler {name}") for name in ("announcement", "opening", "answer")}
    announcement = {"pubkey": b64(fillers["announcement"]), "e2e": 2, "rs": 1}
    opening = {"pubkey": b64(fillers["opening"]), "e2e": 2, "noise": b64(message_1), "rs": 1}
    answer = {"pubkey": b64(fillers["answer"]), "e2e": 2, "noise": b64(message_2), "re": OPENING_ID, "rs": 1}
    plain_1, plain_2, *_ = handshake(psk, plain, phone, agent)
    plain_opening = {name: value for name, value in opening.items() if name != "rs"} | {"noise": b64(plain_1)}
    others = [("rs is missing", ...), ("rs is 2", 2), ("rs is true", True), ("rs is a string", "1"), ("rs is null", None)]

    def with_other_rs(payload):
        for why, value in others:
            rest = {name: field for name, field in payload.items() if name != "rs"}
            yield {"why": why, "payload": rest if value is ... else rest | {"rs": value}}

    def of_another_prologue(payload, message):
        return {"why": "the prologue has no :rs1", "payload": payload | {"noise": b64(message)}}

    first = {"phone": plaintexts.boot("phone"), "agent": plaintexts.boot("agent")}
    nothing = {"e": "", "n": 0}
    said = {
        "phone": [
            ("ack", {"a": nothing, "r": True}),
            ("chat.send", {"e": first["phone"], "n": 1, "b": 1, "a": nothing, "p": {"text": "hello"}}),
        ],
        "agent": [
            ("ack", {"a": nothing, "r": True}),
            (
                "chat.done",
                {
                    "e": first["agent"],
                    "n": 3,
                    "f": 1,
                    "b": 1,
                    "a": {"e": first["phone"], "n": 1},
                    "p": {"full_text": "h\u00e4llo \u6f22\u5b57 \U0001f40b"},
                },
            ),
        ],
    }
    said = {role: [(kind, plaintexts.text(value)) for kind, value in messages] for role, messages in said.items()}
    return {
        "about": "Resume: key exchange, plaintexts, and what receiver, sender and agreement do. See PROTOCOL.md.",
        "token": TOKEN,
        "secret": psk.hex(),
        "prologue": prologue.decode(),
        "phone_ephemeral_private": phone.hex(),
        "agent_ephemeral_private": agent.hex(),
        **agreed_fields(agreed, fillers),
        "key_exchange": {"announcement": announcement, "opening": opening, "answer": answer},
        "plain_opening": plain_opening,
        "plain_announcements": list(with_other_rs(announcement)),
        "refused_openings": [*with_other_rs(opening), of_another_prologue(opening, plain_1)],
        "refused_answers": [*with_other_rs(answer), of_another_prologue(answer, plain_2)],
        "messages": conversation(agreed, said),
        "records": {"read": plaintexts.records_read(), "refused": plaintexts.records_refused()},
        "acks": {"read": plaintexts.acks_read(), "refused": plaintexts.acks_refused()},
        "t0": sender.T0,
        "receiver": receiver.receiver_cases(),
        "sender": sender.sender_cases(),
        "agreement": sender.agreement_cases(),
    }


def lines(value, indent=""):
    """JSON in which what has no more than a few values takes one line."""
    flat = json.dumps(value)
    if not isinstance(value, dict | list) or len(flat) <= 118 - len(indent) or "at" in value:
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(name)}: {lines(item, deeper)}" for name, item in value.items()]
        opened, closed = "{}"
    else:
        items, (opened, closed) = [lines(item, deeper) for item in value], "[]"
    return f"{opened}\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}{closed}"


def main(check):
    differ = []
    texts = {
        "e2e_v1.json": json.dumps(version_1(), indent=2),
        "e2e_v2.json": json.dumps(version_2(), indent=2),
        "e2e_v3.json": json.dumps(version_3(), indent=2),
        "resume.json": lines(resume()),
    }
    for name, text in texts.items():
        path, text = FOLDER / name, text + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                differ.append(name)
        else:
            path.write_text(text)
    if differ:
        sys.exit(f"made anew, they differ: {', '.join(differ)}")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
