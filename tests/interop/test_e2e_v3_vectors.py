"""Version 3 in Python against clients/vectors/e2e_v3.json, and its rules over two ends."""

import json
import random as pseudo
from itertools import count

import pytest
from vectors import drawn, read

from coralmux import Link, LinkError, v3
from coralmux.crypto import b64, b64url, unb64
from coralmux.noise import HandshakeError
from coralmux.v3 import keys, wire
from coralmux.v3.sessions import Chain, associated_data

V3 = read("e2e_v3.json")
TOKEN, DEVICE, K = V3["token"], V3["device_id"], bytes.fromhex(V3["k"])
ENROLMENT, SESSION = V3["enrolment"], V3["session"]


def at(seconds):
    return v3.Now(seconds, 1_770_000_000 + seconds)


def counting(seed=1):
    return pseudo.Random(seed).randbytes


def agent_key():
    return v3.StaticKey(bytes.fromhex(V3["agent_static_private"]))


def device_key():
    return v3.StaticKey(bytes.fromhex(V3["device_static_private"]))


def enrolling():
    device = v3.Enrolment(TOKEN, DEVICE, device_key(), K, V3["a"], "Tablet", "web")
    random = drawn(ENROLMENT["device_ephemeral_private"], ENROLMENT["r"])
    assert device.poll_first(at(0), random, ENROLMENT["ids"][0]) == (ENROLMENT["ids"][0], ENROLMENT["key_exchange"][0])
    return device


def inviting():
    agent = v3.Enrolments(TOKEN, agent_key())
    agent.open(K)
    return agent


def answering():
    agent, (first, second, _) = inviting(), ENROLMENT["key_exchange"]
    random = drawn(ENROLMENT["agent_ephemeral_private"])
    assert agent.handle_first(at(0), random, DEVICE, ENROLMENT["ids"][0], first) == second
    return agent


def enrolled():
    device, agent = enrolling(), answering()
    enrolled = device.handle_second(at(0), ENROLMENT["key_exchange"][1])
    assert enrolled.end.poll_enrolment() == ENROLMENT["key_exchange"][2]
    return enrolled, agent.handle_third(at(0), DEVICE, ENROLMENT["key_exchange"][2])


def pair(random):
    """Two ends that are connected, drained and admitted."""
    device, agent = (one.end for one in enrolled())
    agent.admit()
    agent.handle_drained()
    device.handle_agent(True)
    device.handle_drained()
    assert device.open(at(0), "device.welcome", None, agent.seal(random, "device.welcome")[0]).confirmed
    return device, agent


def opened():
    device, agent = pair(counting())
    device.handle_complaint()
    random = drawn(SESSION["device_ephemeral_private"])
    assert device.poll_opening(at(0), random, SESSION["opening_id"]) == SESSION["key_exchange"][0]
    return device, agent


def test_what_follows_from_link_and_keys():
    assert b64url(v3.invite(K)) == V3["invite"] and b64(keys.sha256(v3.invite(K))) == V3["invite_sha256"]
    assert agent_key().public.hex() == V3["agent_static_public"]
    assert v3.agent_print(agent_key().public) == V3["a"]
    for link in (V3["links"]["for_apps"], V3["links"]["for_browsers"]):
        parsed = Link.parse(link)
        assert (parsed.secret, parsed.agent) == (K, V3["a"])
    assert (parsed.for_apps(), parsed.for_browsers()) == (V3["links"]["for_apps"], V3["links"]["for_browsers"])
    for damaged in ("", V3["a"][1:], V3["a"] + "A", V3["a"] + "=", "+" * 22):
        with pytest.raises(LinkError):
            Link.parse(link.rpartition("&a=")[0] + f"&a={damaged}")
    assert v3.device_id(bytes.fromhex(V3["device_key"])) == DEVICE
    device, r = bytes.fromhex(V3["device_static_public"]), bytes.fromhex(ENROLMENT["r"])
    assert device == device_key().public
    assert keys.commitment(device, r).hex() == ENROLMENT["commitment"]
    for case in V3["codes"]:
        parts = (bytes.fromhex(case[name]) for name in ("h2", "device_static_public", "r"))
        assert keys.code(*parts) == case["code"]


def test_an_enrolment_is_that_of_the_vectors():
    device, agent = enrolled()
    assert device.code == agent.code == ENROLMENT["code"]
    assert (agent.name, agent.platform, b64url(agent.invite)) == ("Tablet", "web", V3["invite"])
    device, agent = device.end, agent.end
    assert device.psk.hex() == agent.psk.hex() == ENROLMENT["psk"]
    assert device.sessions.sid.hex() == agent.sessions.sid.hex() == ENROLMENT["sid"]
    assert device.sessions.sending.key.hex() == ENROLMENT["chain_device"]
    assert agent.sessions.sending.key.hex() == ENROLMENT["chain_agent"]
    assert device.sessions.receiving[0].chain == agent.sessions.sending
    assert agent.sessions.receiving[0].chain == device.sessions.sending
    assert (device.agent, agent.public) == (agent_key().public, device_key().public)


def test_a_session_is_that_of_the_vectors():
    device, agent = opened()
    random = drawn(SESSION["agent_ephemeral_private"])
    answer = agent.handle_opening(at(0), random, SESSION["opening_id"], SESSION["key_exchange"][0])
    assert answer == SESSION["key_exchange"][1]
    assert device.handle_answer(at(0), answer)
    assert agent.open(at(0), "ack", None, device.seal(counting(), "ack")[0]).confirmed
    assert agent.sessions.sid.hex() == device.sessions.sid.hex() == SESSION["sid"]
    assert agent.sessions.sending.key.hex() == SESSION["chain_agent"]


@pytest.mark.parametrize("message", V3["messages"], ids=lambda message: f"{message['from']} {message['i']}")
def test_messages_are_sealed_and_opened_as_the_vectors_have_them(message):
    chain = Chain(bytes.fromhex(SESSION[f"chain_{message['from']}"])).wound(message["i"])
    assert (chain.key.hex(), chain.message_key.hex()) == (message["ck"], message["mk"])
    sid, text = bytes.fromhex(SESSION["sid"]), message["plaintext"].encode()
    place = DEVICE, sid, message["type"], message["id"]
    assert associated_data(DEVICE, sid, message["i"], message["type"], message["id"]).hex() == message["associated"]
    nonce, ciphertext = chain.seal(*place, bytes.fromhex(message["random"]), text)
    assert wire.enclose(sid, message["i"], nonce, ciphertext) == message["payload"]
    assert chain.open(*place, nonce, ciphertext) == text


def test_what_arrives_is_taken_and_refused_as_the_vectors_have_it():
    agent, draining = enrolled()[1].end, True
    agent.admit()
    for step in V3["arrivals"]:
        now = at(step["at_ms"] / 1000)
        if step["step"] == "connected":
            agent.handle_connected()
            draining = True
        elif step["step"] == "drained":
            agent.handle_drained()
            draining = False
        elif step["step"] == "opening":
            opening = {"e2e": 3, "noise": step["noise"]}
            assert agent.handle_opening(now, drawn(step["ephemeral"]), "x", opening)["noise"] == step["answer"]
        elif step["opens"] is None:
            with pytest.raises(v3.OpenError) as refused:
                agent.open(now, step["type"], step["id"], step["payload"])
                pytest.fail(step["why"])
            assert (refused.value.reason, refused.value.is_sign(draining)) == (step["reason"], step["sign"]), step
        else:
            opened = agent.open(now, step["type"], step["id"], step["payload"])
            expected = json.loads(step["opens"]), step["skipped"], step["confirms"]
            assert (opened.payload, opened.skipped, opened.confirmed) == expected
        assert agent.sessions.sid.hex() == step["sends_with"]


def named(name):
    return pytest.mark.parametrize("case", V3[name], ids=lambda case: case["why"])


@named("refused_message_1")
def test_the_agent_refuses_the_first_message(case):
    with pytest.raises(v3.EnrolError, match="wrong secret|malformed"):
        inviting().handle_first(at(0), counting(), DEVICE, None, v3.key_exchange(unb64(case["noise"]), 1))


@named("refused_message_2")
def test_the_device_refuses_the_second_message_and_takes_the_right_one_but_after_another_agents(case):
    device = enrolling()
    with pytest.raises(v3.EnrolError) as refused:
        device.handle_second(at(0), ENROLMENT["key_exchange"][1] | {"noise": case["noise"]})
    if "static key" in case["why"]:
        assert str(refused.value) == "other agent"
        with pytest.raises(v3.EnrolError, match="answered"):
            device.handle_second(at(0), ENROLMENT["key_exchange"][1])
    else:
        assert device.handle_second(at(0), ENROLMENT["key_exchange"][1])


def test_the_device_takes_one_second_message():
    device = enrolling()
    assert device.handle_second(at(0), ENROLMENT["key_exchange"][1])
    for case in V3["refused_second_message_2"]:
        with pytest.raises(v3.EnrolError, match="answered"):
            device.handle_second(at(0), ENROLMENT["key_exchange"][1] | {"noise": case["noise"]})
    assert device.poll_first(at(99), counting(), "x") is None


@named("refused_message_3")
def test_the_agent_refuses_the_third_message(case):
    agent, right = answering(), ENROLMENT["key_exchange"][2]
    with pytest.raises(v3.EnrolError) as refused:
        agent.handle_third(at(0), DEVICE, right | {"noise": case["noise"]})
    short_or_long = not 64 <= len(unb64(case["noise"])) <= 2048
    if str(refused.value) == "wrong secret" or short_or_long:
        assert agent.handle_third(at(0), DEVICE, right)
    else:
        with pytest.raises(v3.EnrolError, match="wrong secret"):
            agent.handle_third(at(0), DEVICE, right)


@named("refused_opening")
def test_the_agent_refuses_the_opening(case):
    _, agent = opened()
    with pytest.raises(HandshakeError):
        agent.handle_opening(at(0), counting(), None, v3.key_exchange(unb64(case["noise"])))


@named("refused_answer")
def test_the_device_refuses_the_answer_and_takes_the_right_one(case):
    device, agent = opened()
    with pytest.raises(HandshakeError):
        device.handle_answer(at(0), SESSION["key_exchange"][1] | {"noise": case["noise"]})
    assert not device.handle_answer(at(0), SESSION["key_exchange"][1] | {"re": "older"})
    assert device.handle_answer(at(0), SESSION["key_exchange"][1])


def agree(now, random, device, agent):
    device.handle_complaint()
    opening = device.poll_opening(now, random, "o")
    assert device.handle_answer(now, agent.handle_opening(now, random, "o", opening))


def test_both_ends_go_on_from_what_they_stored():
    random = counting()
    device, agent = pair(random)
    for round in range(4):
        agree(at(10 * round), random, device, agent)
        assert agent.open(at(10), "ack", None, device.seal(random, "ack")[0]).confirmed
        assert not device.open(at(10), "ack", None, agent.seal(random, "ack")[0]).confirmed
        device = v3.DeviceEnd.load(json.loads(json.dumps(device.state)))
        agent = v3.AgentEnd.load(TOKEN, agent_key(), json.loads(json.dumps(agent.state)))
        assert agent.open(at(10), "ack", None, device.seal(random, "ack")[0]).skipped == 63
        assert device.open(at(10), "ack", None, agent.seal(random, "ack")[0]).skipped == 63
        device.handle_agent(True)
        device.handle_drained()


def test_tries_of_a_device_and_of_a_link_are_counted():
    device, random = v3.Enrolment(TOKEN, DEVICE, device_key(), K, V3["a"], "x", "y"), counting()
    tries = []
    for start in (0, 10, 20):
        tries.append(device.poll_first(at(start), random, str(start)))
        device.handle_connected()
        assert device.poll_first(at(start), random, "again") == tries[-1]
    with pytest.raises(v3.EnrolError, match="spent"):
        device.poll_first(at(30), random, "x")
    assert len({payload["noise"] for _, payload in tries}) == 3
    agent = inviting()
    firsts = [v3.Enrolment(TOKEN, DEVICE, device_key(), K, V3["a"], "x", "y") for _ in range(9)]
    firsts = [device.poll_first(at(0), random, "a")[1] for device in firsts]
    answers = [agent.handle_first(at(0), random, DEVICE, "a", first) for first in firsts[:8]]
    assert [agent.handle_first(at(0), random, DEVICE, "a", first) for first in firsts[:8]] == answers
    agent = v3.Enrolments.load(TOKEN, agent_key(), agent.state)
    with pytest.raises(v3.EnrolError, match="spent"):
        agent.handle_first(at(0), random, DEVICE, "a", firsts[8])
    assert agent.invites(at(0)) == []


def test_rates_and_lives_of_sessions():
    random = counting()
    device, agent = pair(random)
    assert device.poll_opening(at(3600), random, "o") is None
    opening = device.poll_opening(at(3601), random, "o")
    assert device.poll_opening(at(3605.9), random, "o") is None
    answers = [agent.handle_opening(at(3601), random, "o", opening) for _ in range(13)]
    assert answers[-1] is None and None not in answers[:12]
    assert agent.handle_opening(at(3661), random, "o", opening)
    # The two newest of them are kept, for a minute: the first answer's is not.
    assert device.handle_answer(at(3661), answers[0])
    with pytest.raises(v3.OpenError, match="unknown session"):
        agent.open(at(3661), "ack", None, device.seal(random, "ack")[0])
    for number, wait in zip(count(1), (59, 60)):
        device, agent = pair(random)
        agree(at(10), random, device, agent)
        sealed = device.seal(random, "ack")[0]
        if wait < 60:
            assert agent.open(at(10 + wait), "ack", None, sealed).confirmed, number
        else:
            with pytest.raises(v3.OpenError, match="unknown session"):
                agent.open(at(10 + wait), "ack", None, sealed)


def test_a_state_that_is_used_twice_does_not_use_a_nonce_twice():
    device, _ = pair(counting())
    state, seen = device.state, set()
    for number in range(20):
        device = v3.DeviceEnd.load(state)
        payload, store = device.seal(lambda length: bytes(length), "chat.send", None, {"n": number})
        assert store and payload["i"] == 0
        seen.add(payload["nonce"])
    assert len(seen) == 20


def test_before_it_is_admitted_nothing_is_sealed_or_opened():
    device, agent = (one.end for one in enrolled())
    with pytest.raises(v3.SealError):
        device.seal(counting(), "chat.send")
    with pytest.raises(v3.SealError):
        agent.seal(counting(), "chat.send")
    with pytest.raises(v3.OpenError, match="not admitted"):
        agent.open(at(0), "chat.send", None, {})
    assert agent.repeats_enrolment(ENROLMENT["key_exchange"][2])
    assert not agent.repeats_enrolment(ENROLMENT["key_exchange"][0])
