"""The Python clients' encryption against the vectors of clients/vectors, and against known answers of others."""

import json
import subprocess
import sys

import pytest
from vectors import FOLDER, drawn, read

from coralmux import End, ExchangeError, Link, LinkError, OpenError, Protection, Waiting, crypto
from coralmux.noise import Handshake, nonce_of

V1, V2 = read("e2e_v1.json"), read("e2e_v2.json")
SECRET, TOKEN = bytes.fromhex(V2["secret"]), V2["token"]


def test_the_vectors_are_those_that_their_script_makes():
    subprocess.run([sys.executable, FOLDER / "make.py", "--check"], check=True)


@pytest.mark.parametrize("pair", V1["pairs"], ids=range(len(V1["pairs"])))
def test_version_1_agrees_the_vectors_keys(pair):
    nonce = "00" * 12
    phone = End("phone", "t", None, drawn(pair["phone_private"], nonce))
    agent = End("agent", "t", None, drawn(pair["agent_private"], "11" * 12))
    announcement = agent.handle_online()
    assert announcement == ("key_exchange", pair["key_exchange"]["agent"])
    step = phone.handle_key_exchange("a", announcement[1], "p")
    assert step.reply == ("key_exchange", pair["key_exchange"]["phone"]) and step.agreed
    assert agent.handle_key_exchange("p", step.reply[1], "b").agreed
    assert phone.keys.key == agent.keys.key == bytes.fromhex(pair["key"])
    assert phone.fingerprint == agent.fingerprint == pair["fingerprint"]
    assert phone.protection is agent.protection is Protection.UNVERIFIED
    assert agent.open("x", phone.seal("x", {"a": 1})).payload == {"a": 1}


def agent_of_v1(*nonces):
    pair = V1["pairs"][0]
    agent = End("agent", "t", None, drawn(pair["agent_private"], *nonces))
    agent.handle_online()
    agent.handle_key_exchange("p", pair["key_exchange"]["phone"], "a")
    return agent


def test_version_1_seals_and_opens_the_vectors_messages():
    agent = agent_of_v1(*(message["nonce"] for message in V1["messages"]))
    for message in V1["messages"]:
        assert agent.seal(message["type"], json.loads(message["plaintext"])) == message["payload"]
        opened = agent.open(message["type"], message["payload"])
        assert opened.payload == json.loads(message["plaintext"])


@pytest.mark.parametrize("case", V1["refused"], ids=lambda case: case["why"])
def test_version_1_refuses(case):
    with pytest.raises(OpenError):
        agent_of_v1().open("chat.send", case["payload"])


@pytest.mark.parametrize("key", V1["refused_public_keys"])
def test_version_1_refuses_the_public_key(key):
    agent = agent_of_v1()
    with pytest.raises(ExchangeError, match="not an X25519 key"):
        agent.handle_key_exchange("p", {"pubkey": key}, "a")
    agent.open("chat.send", V1["messages"][0]["payload"])  # the key that was agreed is still there


def opening_phone(**_):
    filler = V2["fillers"]["opening"]
    phone = End("phone", TOKEN, SECRET, drawn(V2["phone_ephemeral_private"], filler))
    step = phone.handle_key_exchange("a", V2["key_exchange"]["announcement"], V2["opening_id"])
    assert step.reply == ("key_exchange", V2["key_exchange"]["opening"]) and not step.agreed
    return phone


def announced_agent():
    fillers = V2["fillers"]
    randoms = fillers["announcement"], V2["agent_ephemeral_private"], fillers["answer"]
    agent = End("agent", TOKEN, SECRET, drawn(*randoms))
    assert agent.handle_online() == ("key_exchange", V2["key_exchange"]["announcement"])
    return agent


def verified_ends():
    phone, agent = opening_phone(), announced_agent()
    step = agent.handle_key_exchange(V2["opening_id"], V2["key_exchange"]["opening"], "")
    assert step.reply == ("key_exchange", V2["key_exchange"]["answer"]) and step.agreed
    with pytest.raises(Waiting):
        phone.seal("chat.send")
    assert phone.handle_key_exchange("b", V2["key_exchange"]["answer"], "").agreed
    return phone, agent


def test_version_2_exchanges_the_vectors_messages_and_splits_their_keys():
    phone, agent = verified_ends()
    to_agent, to_phone = bytes.fromhex(V2["key_phone_to_agent"]), bytes.fromhex(V2["key_agent_to_phone"])
    assert (phone.keys.send, phone.keys.receive) == (agent.keys.receive, agent.keys.send) == (to_agent, to_phone)
    assert phone.protection is agent.protection is Protection.VERIFIED
    ends = {"phone": (phone, agent), "agent": (agent, phone)}
    for message in V2["messages"]:
        sender, receiver = ends[message["from"]]
        payload = json.loads(message["plaintext"])
        assert sender.seal(message["type"], payload) == message["payload"]
        assert receiver.open(message["type"], message["payload"]).payload == payload


def test_version_2_takes_and_refuses_what_arrives_as_the_vectors_have_it():
    _, agent = verified_ends()
    missed = 0
    for arrival in V2["arrivals"]:
        if arrival["opens"] is None:
            with pytest.raises(OpenError) as refused:
                agent.open(arrival["type"], arrival["payload"])
                pytest.fail(arrival["why"])
            if arrival["why"] in ("replayed", "out of order"):
                assert refused.value.reason == "replayed"
        else:
            opened = agent.open(arrival["type"], arrival["payload"])
            assert (opened.payload, opened.missed) == (json.loads(arrival["opens"]), arrival["missed"])
            missed += opened.missed
    assert agent.missed == missed


def test_a_counter_that_was_taken_says_nothing_of_other_keys():
    """Replayed is only what authenticates."""
    _, agent = verified_ends()
    message = next(message for message in V2["messages"] if message["from"] == "phone")
    agent.open(message["type"], message["payload"])
    for kind, reason in ((message["type"], "replayed"), (f"{message['type']}.other", "forged")):
        with pytest.raises(OpenError) as refused:
            agent.open(kind, message["payload"])
        assert refused.value.reason == reason


@pytest.mark.parametrize("case", V2["refused_message_1"], ids=lambda case: case["why"])
def test_version_2_refuses_the_opening(case):
    agent = announced_agent()
    with pytest.raises(ExchangeError) as refused:
        agent.handle_key_exchange("p", V2["key_exchange"]["opening"] | {"noise": case["noise"]}, "")
    assert refused.value.reason in ("wrong_secret", "malformed")
    kind, payload = agent.complaint(refused.value)
    assert (kind, payload["code"]) == ("chat.error", "DECRYPTION_FAILED")
    with pytest.raises(Waiting):
        agent.seal("chat.stream")


@pytest.mark.parametrize("case", V2["refused_message_2"], ids=lambda case: case["why"])
def test_version_2_refuses_the_answer_and_still_takes_the_right_one(case):
    phone = opening_phone()
    with pytest.raises(ExchangeError) as refused:
        phone.handle_key_exchange("b", V2["key_exchange"]["answer"] | {"noise": case["noise"]}, "")
    assert refused.value.reason in ("wrong_secret", "malformed")
    assert phone.complaint(refused.value) is None
    assert phone.handle_key_exchange("b", V2["key_exchange"]["answer"], "").agreed


def test_with_a_secret_neither_end_steps_down():
    phone, agent = opening_phone(), announced_agent()
    with pytest.raises(ExchangeError) as refused:
        phone.handle_key_exchange("b", V1["pairs"][0]["key_exchange"]["agent"], "")
    assert refused.value.reason == "downgrade"
    assert not phone.allow_clear()
    with pytest.raises(ExchangeError) as refused:
        agent.handle_key_exchange("b", V1["pairs"][0]["key_exchange"]["phone"], "")
    assert refused.value.reason == "not_verified"


def test_the_handshake_gives_the_known_answers_of_cacophony():
    """The vector of Noise_NNpsk0_25519_AESGCM_SHA256 that the Haskell library cacophony published."""
    private = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"
    phone = Handshake(b"This is my Austrian perspective!", b"John Galt", bytes.fromhex(private))
    private = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"
    agent = Handshake(b"This is my Austrian perspective!", b"John Galt", bytes.fromhex(private))
    message = phone.write_1(b"Ludwig von Mises")
    assert message.hex() == (
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79447c37a89fc17813788d30df2d59501d60"
        "66f5f8aecc3406bbd9829f2d24a531b1"
    )
    assert agent.read_1(message) == b"Ludwig von Mises"
    message = agent.write_2(b"Murray Rothbard")
    assert message.hex() == (
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088432f29d79368ef9de4e1ae7a362fb05bf0"
        "ad668e026bf5714554497b3a720461"
    )
    assert phone.read_2(message) == b"Murray Rothbard"
    digest = "9f3b1f9afd7767767b5b9d1069844a6154fdbdcc36dfb3e31c0fffc5c973d530"
    assert phone.hash.hex() == agent.hash.hex() == digest
    assert phone.split() == agent.split()
    for key, text, sealed in zip(
        phone.split(),
        (b"F. A. Hayek", b"Carl Menger"),
        ("7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6", "a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0"),
        strict=True,
    ):
        assert crypto.decrypt(key, nonce_of(0), bytes.fromhex(sealed), b"") == text


def test_links_are_those_of_the_vectors():
    link = Link(TOKEN, V2["links"]["relay"], SECRET)
    assert (link.for_apps(), link.for_browsers()) == (V2["links"]["for_apps"], V2["links"]["for_browsers"])
    for text in (link.for_apps(), link.for_browsers()):
        assert Link.parse(text) == link
    assert "secret" not in repr(link)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://relay.example/",
        f"openclaw://pair?token={TOKEN}",
        "openclaw://pair?relay=ws://x/ws",
        f"openclaw://pair?token={TOKEN}&relay=http://x/ws",
        f"openclaw://pair?token={TOKEN}&relay=ws://x/ws&k=",
        f"openclaw://pair?token={TOKEN}&relay=ws://x/ws&k={'A' * 42}_",
    ],
)
def test_what_is_no_link_is_refused(text):
    with pytest.raises(LinkError):
        Link.parse(text)


@pytest.mark.parametrize(
    ("page", "relay"),
    [
        ("https://relay.example/", "wss://relay.example/ws"),
        ("http://127.0.0.1:8080/a/b/", "ws://127.0.0.1:8080/a/b/ws"),
    ],
)
def test_a_relay_behind_a_prefix_has_a_link_with_it(page, relay):
    token = "oc_pair_" + "0" * 32
    link = Link.parse(f"{page}#token={token}")
    assert link.relay == relay and link.for_browsers() == f"{page}#token={token}"
    assert Link(token, "wss://relay.example/other").for_browsers() is None
