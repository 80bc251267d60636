"""The Python client's part in resuming, against the vectors of clients/vectors/resume.json."""

import json

import pytest
from vectors import drawn, read

from coralmux import End, ExchangeError, OpenError, Protection
from coralmux.receiver import Receiver
from coralmux.records import NOTHING, Ack, Malformed, Position, read_ack, read_record
from coralmux.resume import Resume
from coralmux.wire import dumps, loads

VECTORS = read("resume.json")
SECRET, TOKEN = bytes.fromhex(VECTORS["secret"]), VECTORS["token"]
EXCHANGE = VECTORS["key_exchange"]


def named(case):
    return case.get("name") or case.get("why")


# ---- Agreeing on it ----


def opening_phone(announcement=EXCHANGE["announcement"], opening=EXCHANGE["opening"], resume=True):
    randoms = VECTORS["phone_ephemeral_private"], VECTORS["fillers"]["opening"]
    phone = End("phone", TOKEN, SECRET, drawn(*randoms), resume=resume)
    step = phone.handle_key_exchange("a", announcement, VECTORS["opening_id"])
    assert step.reply == ("key_exchange", opening) and not step.agreed
    return phone


def announced_agent():
    fillers = VECTORS["fillers"]
    randoms = fillers["announcement"], VECTORS["agent_ephemeral_private"], fillers["answer"]
    agent = End("agent", TOKEN, SECRET, drawn(*randoms), resume=True)
    assert agent.handle_online() == ("key_exchange", EXCHANGE["announcement"])
    return agent


def agreed_ends():
    phone, agent = opening_phone(), announced_agent()
    step = agent.handle_key_exchange(VECTORS["opening_id"], EXCHANGE["opening"], "")
    assert step.reply == ("key_exchange", EXCHANGE["answer"]) and step.agreed
    assert phone.handle_key_exchange("b", EXCHANGE["answer"], "").agreed
    return phone, agent


def test_the_ends_agree_as_the_vectors_have_it_and_seal_and_open_their_messages():
    phone, agent = agreed_ends()
    assert phone.resumes and agent.resumes
    to_agent, to_phone = bytes.fromhex(VECTORS["key_phone_to_agent"]), bytes.fromhex(VECTORS["key_agent_to_phone"])
    assert (phone.keys.send, phone.keys.receive) == (agent.keys.receive, agent.keys.send) == (to_agent, to_phone)
    ends = {"phone": (phone, agent), "agent": (agent, phone)}
    for message in VECTORS["messages"]:
        sender, receiver = ends[message["from"]]
        assert sender.seal_text(message["type"], message["plaintext"]) == message["payload"]
        opened = receiver.open(message["type"], message["payload"])
        assert opened.payload == json.loads(message["plaintext"]) and opened.resumes


@pytest.mark.parametrize("case", VECTORS["plain_announcements"], ids=named)
def test_a_phone_opens_without_it_after_any_other_announcement(case):
    assert not opening_phone(case["payload"], VECTORS["plain_opening"]).resumes


def test_a_phone_that_does_not_want_it_opens_without():
    opening_phone(EXCHANGE["announcement"], VECTORS["plain_opening"], resume=False)


def test_an_agent_that_does_not_want_it_does_not_offer_it():
    randoms = VECTORS["fillers"]["announcement"]
    agent = End("agent", TOKEN, SECRET, drawn(randoms), resume=False)
    assert "rs" not in agent.handle_online()[1]


@pytest.mark.parametrize("case", VECTORS["refused_openings"], ids=named)
def test_an_agent_refuses_the_opening(case):
    agent = announced_agent()
    with pytest.raises(ExchangeError) as refused:
        agent.handle_key_exchange("p", case["payload"], "")
    assert refused.value.reason == "wrong_secret" and agent.keys is None


@pytest.mark.parametrize("case", VECTORS["refused_answers"], ids=named)
def test_a_phone_refuses_the_answer_and_still_takes_the_right_one(case):
    phone = opening_phone()
    with pytest.raises(ExchangeError) as refused:
        phone.handle_key_exchange("b", case["payload"], "")
    assert refused.value.reason == "wrong_secret" and phone.protection is Protection.WAITING
    assert phone.handle_key_exchange("b", EXCHANGE["answer"], "").agreed and phone.resumes


# ---- Plaintexts ----


# Unix time in ms at which the clock of the scripts is 0.
T0 = VECTORS["t0"]


def as_json(position):
    return position.json()


def position_of(values):
    """As a script has it."""
    return Position(values["e"], values["n"], tuple((first, last) for first, last in values.get("x", ())))


@pytest.mark.parametrize("case", VECTORS["records"]["read"], ids=range(len(VECTORS["records"]["read"])))
def test_a_record_is_read(case):
    record = read_record(loads(case["plaintext"]))
    read = {"e": record.e, "n": record.n, "f": record.f, "b": record.b, "p": record.p}
    read |= {name: as_json(value) for name, value in (("a", record.a), ("o", record.o)) if value is not None}
    read |= {} if record.t is None else {"t": record.t}
    assert read == case["record"]


@pytest.mark.parametrize("case", VECTORS["acks"]["read"], ids=range(len(VECTORS["acks"]["read"])))
def test_an_ack_is_read(case):
    ack = read_ack(loads(case["plaintext"]))
    assert (as_json(ack.a), ack.r) == (case["a"], case["r"])
    assert read_ack(loads(ack.text())) == ack


@pytest.mark.parametrize(
    ("read", "case"),
    [(read_record, case) for case in VECTORS["records"]["refused"]]
    + [(read_ack, case) for case in VECTORS["acks"]["refused"]],
    ids=lambda value: value["why"] if isinstance(value, dict) else value.__name__,
)
def test_a_plaintext_is_refused(read, case):
    phone, agent = agreed_ends()
    sealed = agent.seal_text("x", case["plaintext"])
    with pytest.raises((OpenError, Malformed)):
        read(phone.open("x", sealed).payload)


# ---- Scripts ----


def payload_of(fields, size):
    """A payload with these fields and, if there is one, of this size."""
    if size is None:
        return fields
    return fields | {"x": "x" * (size - len(dumps(fields | {"x": ""})))}


def acknowledgements(resume, now):
    found = []
    while leaving := resume.poll(now):
        assert isinstance(leaving, Ack)
        found.append({"a": as_json(leaving.a)} | ({"r": True} if leaving.r else {}))
    return found


def quiet_resume(role, random=None):
    """One that has agreed, and whose first ack and the peer's have passed."""
    resume = Resume(role, **({"random": random} if random else {}))
    resume.handle_agreed()
    assert resume.poll(float("-inf")) == Ack(NOTHING, r=True)
    resume.handle_ack(0, Ack(NOTHING))
    return resume


@pytest.mark.parametrize("case", VECTORS["receiver"], ids=named)
def test_a_receiver_follows_the_script(case):
    resume = quiet_resume("phone")
    receiver: Receiver = resume.receiver
    receiver.counted = not case["ext"]
    for step in case["steps"]:
        now, taken, missed, confirm = step["at"] / 1000, [], 0, None
        if step["do"] == "record":
            fields = dict(step["record"])
            size, o = fields.pop("size", None), fields.pop("o", None)
            payload = payload_of({"n": fields["n"]}, size)
            record = read_record(fields | {"p": payload} | ({"o": o} if o else {}))
            taken, missed = resume.handle_record(now, record, len(dumps(payload)), payload["n"])
        elif step["do"] == "agreed":
            resume.handle_agreed()
        elif step["do"] == "pause":
            resume.handle_pause()
        elif step["do"] == "drains":
            resume.handle_connected(None, drains=True)
        elif step["do"] == "mail":
            taken, missed, confirm = resume.handle_mail(now, step["upto"], step["left"])
        carried = [{"a": as_json(receiver.told())}] if step["do"] == "carry" else []
        acks = carried + acknowledgements(resume, now)
        if step["do"] == "agreed":
            resume.handle_ack(now, Ack(NOTHING))
        seen = {"taken": taken, "held": len(receiver.ahead), "missed": missed, "acks": acks}
        assert (seen, confirm) == ({name: step[name] for name in seen}, step.get("confirm")), step
        deadline = resume.deadline()
        assert deadline is None or deadline > now, step


class SenderScript:
    """Drives a sender by the steps of a script, and describes what leaves as the script does."""

    def __init__(self, resume):
        self.resume, self.sender = resume, resume.sender
        self.answers = {}  # the ids that were given to pieces

    def do(self, step, now):
        """What the step does; `told` and `given_up`."""
        told, given_up = [], []
        match step["do"]:
            case "send":
                kind = "chat.tool_status" if step.get("fleeting") else "x"
                given_up = self.push(kind, step["id"], payload_of({"id": step["id"]}, step.get("size")), step)
            case "piece":
                message_id = f"piece {len(self.answers)}"
                self.answers[message_id] = step["answer"]
                self.push("chat.stream", message_id, {"chat_id": step["answer"], "delta": step["delta"], "seq": 1}, step)
            case "done":
                given_up = self.push("chat.done", step["id"], {"chat_id": step["answer"], "full_text": "."}, step)
            case "error":
                given_up = self.push("chat.error", step["id"], {"chat_id": step["answer"], "code": "X"}, step)
            case "ack":
                position = position_of(step.get("a") or step["ack"]["a"])
                r = step.get("r") or step.get("ack", {}).get("r", False)
                self.resume.handle_ack(now, Ack(position, r))
                told = self.sender.take_undelivered()
            case "kept":
                self.sender.handle_kept(step["id"])
            case "absent":
                self.resume.handle_absent()
            case "refused":
                after = step.get("retry_after_ms", 0) / 1000
                if self.sender.handle_refused(now, step["id"], step["code"], after) == "void":
                    told = [step["id"]]
            case "pause" | "connected" | "lost" | "online":
                self.resume.handle_pause()
            case "agreed":
                self.resume.handle_agreed()
            case other:
                assert other == "time"
        return told, given_up

    def push(self, kind, message_id, payload, step):
        return self.sender.push(kind, message_id, payload, step.get("keep", "quiet"), T0 + step["at"])

    def leaving(self, now):
        acks, records = [], []
        while leaving := self.resume.poll(now):
            if isinstance(leaving, Ack):
                acks.append({"ack": {"a": as_json(leaving.a)} | ({"r": True} if leaving.r else {})})
                continue
            record = read_record(loads(self.resume.text(leaving)))
            message = leaving.message
            seen = {"e": record.e, "n": record.n, "f": record.f, "b": record.b}
            is_piece = message.kind == "chat.stream"
            seen["is"] = self.answers[message.id] if is_piece else message.id
            if is_piece:
                assert record.p["chat_id"] == self.answers[message.id]
                seen["delta"] = record.p["delta"]
            seen |= {} if leaving.keep is None else {"keep": leaving.keep}
            seen |= {} if record.t is None else {"t": record.t}
            records.append(seen)
        return acks, records


def boots(texts):
    """A source of randomness that gives out these boots."""
    from base64 import urlsafe_b64decode

    values = [urlsafe_b64decode(text + "=") for text in texts]
    return lambda _count: values.pop(0)


@pytest.mark.parametrize("case", VECTORS["sender"], ids=named)
def test_a_sender_follows_the_script(case):
    script = SenderScript(quiet_resume(case["role"], boots(case["boots"])))
    script.sender.mail_bytes_max = case.get("mail")
    for step in case["steps"]:
        now = step["at"] / 1000
        told, given_up = script.do(step, now)
        _, records = script.leaving(now)
        seen = {"out": records, "told": told, "given_up": given_up}
        assert seen == {"out": step["out"], "told": step.get("told", []), "given_up": step.get("given_up", [])}, step
        deadline = script.sender.deadline()
        assert deadline is None or deadline > now, step


@pytest.mark.parametrize("case", VECTORS["agreement"], ids=lambda case: f"{case['role']}: {case['name']}")
def test_an_end_agrees_by_the_script(case):
    own = next((out["record"]["e"] for step in case["steps"] for out in step["out"] if "record" in out), "A" * 11)
    resume = Resume(case["role"], boots([own]))
    script = SenderScript(resume)
    for step in case["steps"]:
        now = step["at"] / 1000
        script.do(step, now)
        acks, records = script.leaving(now)
        assert acks + [{"record": record} for record in records] == step["out"], step
        deadline = resume.deadline()
        assert deadline is None or deadline > now, step
