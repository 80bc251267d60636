"""Two ends that resume and a network that loses what is on its way, at random: nothing is lost, nothing comes twice.

No sockets and no clock. CORALMUX_SOAK_SEED repeats a failure, CORALMUX_MODEL_RUNS makes it longer.
"""

import itertools
import os
import random

import pytest

from coralmux.records import Ack, read_record
from coralmux.resume import Resume
from coralmux.wire import loads

RUNS = int(os.environ.get("CORALMUX_MODEL_RUNS", "45"))
STEPS = 150
SIZES = [0] * 8 + [10, 1000, 20_000, 250_000]
WINDOWS = {"agent": (256, 192 << 10), "phone": (64, 16 << 20)}


class Side:
    """One end, what is on its way to the other, and what the test knows of both."""

    def __init__(self, role, model):
        self.role, self.model, self.rng = role, model, model.rng
        self.resume = Resume(role, self.rng.randbytes)
        self.way = []
        self.sent = {}  # what has to arrive: its id, in the order of sending
        self.taken = []  # ids that arrived in this process
        self.missed = 0

    def push(self, kind, payload):
        message_id = f"{self.role} {next(self.model.numbers)}"
        payload = payload | {"id": message_id, "x": "x" * self.rng.choice(SIZES)}
        if self.resume.sender.has_room(kind, payload):
            given_up = self.resume.sender.push(kind, message_id, payload)
            self.sent[message_id] = (kind, payload)
            self.model.given_up.update(given_up)

    def pump(self):
        while leaving := self.resume.poll(self.model.now):
            self.way.append((leaving, self.resume.text(leaving)))
            if not isinstance(leaving, Ack):
                count, size = WINDOWS[self.role]
                held = self.resume.sender.held
                assert len(held) == 1 or (len(held) <= count and sum(m.size for m in held) <= size)
        deadline = self.resume.deadline()
        assert deadline is None or deadline > self.model.now, "it would be polled in vain"

    def hear(self, leaving, text):
        if isinstance(leaving, Ack):
            self.resume.handle_ack(self.model.now, leaving)
            return
        item = loads(text)["p"]
        record = read_record(loads(text))
        taken, missed = self.resume.handle_record(self.model.now, record, len(text), (leaving.message.kind, item))
        self.missed += missed
        self.taken += taken
        receiver = self.resume.receiver
        assert len(receiver.ahead) <= 256 and receiver.ahead_bytes <= 1 << 20 and len(receiver.boots) <= 4


class Model:
    def __init__(self, seed):
        self.rng, self.now, self.numbers = random.Random(seed), 0.0, itertools.count()
        self.given_up = set()  # some of them have arrived, unknown to their sender
        self.sides = Side("phone", self), Side("agent", self)
        self.phone, self.agent = self.sides
        self.answer, self.text, self.told = 0, "", {}
        self.agree()
        for side in self.sides:
            side.push("chat.first", {})  # from then on each knows the other's process, and counts what it misses
        for side in self.sides * 3:
            side.pump()
            self.deliver(side, len(side.way))
        assert all(side.taken for side in self.sides)

    def agree(self):
        for side in self.sides:
            side.way.clear()
            side.resume.handle_agreed()

    def lose(self):
        """The connection breaks: what is on its way is lost, but for some of the first messages of each direction."""
        for side in self.sides:
            self.deliver(side, self.rng.randint(0, len(side.way)))
            side.way.clear()
            side.resume.handle_pause()

    def deliver(self, side, count):
        other = self.sides[side is self.phone]
        for leaving, text in side.way[:count]:
            other.hear(leaving, text)
        del side.way[:count]

    def speak(self):
        draw = self.rng.random()
        if draw < 0.2:
            self.phone.push("chat.send", {"text": "."})
        elif draw < 0.3:
            self.agent.push("chat.note", {})
        elif draw < 0.85 or not self.text:
            delta = f"{next(self.numbers)} "
            payload = {"delta": delta, "chat_id": str(self.answer)}
            if self.agent.resume.sender.has_room("chat.stream", payload):
                self.agent.resume.sender.push("chat.stream", f"p{delta}", payload)
                self.text += delta
        else:
            self.agent.push("chat.done", {"full_text": self.text, "chat_id": str(self.answer)})
            self.told[str(self.answer)] = self.text
            self.answer, self.text = self.answer + 1, ""

    def refuse(self):
        """The relay takes something that is on its way for too much, or nobody is there."""
        side = self.rng.choice(self.sides)
        code = self.rng.choice(["RATE_LIMITED", "DAILY_QUOTA_EXCEEDED", "PEER_OFFLINE"])
        for at, (leaving, _) in enumerate(side.way):
            if not isinstance(leaving, Ack):
                del side.way[at]
                side.resume.sender.handle_refused(self.now, leaving.message.id, code, self.rng.uniform(0, 3))
                return

    def step(self):
        draw = self.rng.random()
        if draw < 0.5:
            for _ in range(self.rng.choice([1, 1, 5, 40])):
                self.speak()
        elif draw < 0.8:
            side = self.rng.choice(self.sides)
            self.deliver(side, self.rng.randint(0, len(side.way)))
        elif draw < 0.85:
            self.refuse()
        elif draw < 0.9:
            self.lose()
        elif draw < 0.95:
            self.agree()
        self.now += self.rng.choice([0, 0.01, 0.1, 1])
        for side in self.sides:
            side.pump()

    def heal(self):
        """The network is whole from now on: everything that is held arrives."""
        self.agree()
        for _ in range(400):
            for side in self.sides:
                side.pump()
                self.deliver(side, len(side.way))
            if all(side.resume.sender.is_idle for side in self.sides):
                return
            self.now += 0.5
        pytest.fail("something is held for ever")

    def check(self):
        for sender, receiver in (self.sides, self.sides[::-1]):
            taken = [payload["id"] for kind, payload in receiver.taken if kind != "chat.stream"]
            assert len(taken) == len(set(taken))
            needed = [message_id for message_id in sender.sent if message_id not in self.given_up]
            assert [message_id for message_id in taken if message_id not in self.given_up] == needed
        assert self.agent.missed == 0 and (self.given_up or self.phone.missed == 0)
        assert self.phone.missed >= len(self.given_up - {payload.get("id") for _, payload in self.phone.taken})
        texts = {}
        for kind, payload in self.phone.taken:
            if kind == "chat.stream":
                texts[payload["chat_id"]] = texts.get(payload["chat_id"], "") + payload["delta"]
        if not self.given_up:
            for answer, text in texts.items():
                whole = self.told.get(answer, self.text)
                assert whole.startswith(text), (answer, text, whole)
            assert texts.get(str(self.answer), "") == self.text, "an answer without its end has all of its pieces"


@pytest.mark.parametrize("part", range(3))
def test_whatever_breaks_nothing_is_lost_and_nothing_comes_twice(part):
    fixed = os.environ.get("CORALMUX_SOAK_SEED")
    first = random.randrange(1 << 32)
    for seed in [fixed] if fixed else range(first, first + RUNS // 3):
        model = Model(str(seed))
        try:
            for _ in range(STEPS):
                model.step()
            model.heal()
            model.check()
        except BaseException:
            print(f"CORALMUX_SOAK_SEED={seed}")
            raise
