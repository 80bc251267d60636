"""45: the ratchet against a naive model. Messages and handshakes are sealed, delivered, dropped, repeated and reordered, ends
are set back to what they had stored, mailboxes drain: a message opens if and only if the model says so.

No sockets and no clock. CORALMUX_SOAK_SEED repeats a failure, CORALMUX_MODEL_RUNS makes it longer.
"""

import os
import random

import pytest

from coralmux import v3
from coralmux.noise import HandshakeError
from coralmux.v3 import keys

RUNS = int(os.environ.get("CORALMUX_MODEL_RUNS", "24"))
STEPS = 400
TOKEN, K, DEVICE = "oc_pair_" + "0" * 32, b"\1" * 32, "0123456789abcdef"


class Side:
    """One end, and what a naive reader of PROTOCOL.md says that it can open.

    `sessions`: [sid, next number, since], confirmed ones, the newest first. `unconfirmed`: (sid, at) of an agent.
    """

    def __init__(self, end, sid):
        self.end, self.sessions, self.unconfirmed = end, [[sid, 0, 0.0]], []
        self.drained, self.kept, self.opened = False, [], set()  # `kept`: what was stored, the newest last
        self.sealed = {}  # (sid, number, nonce): the ciphertext
        self.generation = 0  # counts how often it was set back

    def find(self, sid):
        return next((one for one in self.sessions if one[0] == sid), None)

    def clean(self):
        if self.drained:
            for place, one in enumerate(self.sessions):
                if one[1] > 0:
                    del self.sessions[place + 1 :]

    def confirm(self, sid, number):
        self.sessions.insert(0, [sid, number, 0.0])
        del self.sessions[4:]
        self.clean()


class Model:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.now = 0.0
        agent_key, device_key = v3.StaticKey(b"\2" * 32), v3.StaticKey(b"\3" * 32)
        device = v3.Enrolment(TOKEN, DEVICE, device_key, K, v3.agent_print(agent_key.public), "Tablet", "web")
        enrolments = v3.Enrolments(TOKEN, agent_key)
        enrolments.open(K)
        message_id, first = device.poll_first(self.at(), self.draw, "first")
        second = enrolments.handle_first(self.at(), self.draw, DEVICE, message_id, first)
        enrolled = device.handle_second(self.at(), second)
        joined = enrolments.handle_third(self.at(), DEVICE, enrolled.end.poll_enrolment())
        joined.end.admit()
        welcome, _ = joined.end.seal(self.draw, "device.welcome")
        enrolled.end.open(self.at(), "device.welcome", None, welcome)
        sid = joined.end.sessions.sid
        enrolled.end.handle_agent(True)
        self.agent_key = agent_key
        self.device, self.agent = Side(enrolled.end, sid), Side(joined.end, sid)
        self.device.sessions[0][1] = 1
        self.way = {self.device: [], self.agent: []}  # (id, payload) that this side has sealed, for ever
        self.openings, self.answers, self.answered = [], [], []
        self.newest_opening, self.count = None, 0
        for side in (self.device, self.agent):
            self.keep(side)

    def at(self):
        return v3.Now(self.now, 1_770_000_000 + self.now)

    def draw(self, count):
        """Randomness of a machine that is set back again and again."""
        return bytes([self.rng.randrange(3)]) * count

    def keep(self, side):
        side.kept.append((side.end.state, [list(one) for one in side.sessions]))
        del side.kept[:-6]

    def seal(self, side):
        self.count += 1
        message_id = str(self.count)
        payload, store = side.end.seal(self.draw, "x", message_id, {"n": self.count})
        if store:
            self.keep(side)
        assert side.sealed.setdefault((payload["s"], payload["i"], payload["nonce"]), payload) == payload
        self.way[side].append((message_id, payload))

    def deliver(self, sender, receiver, at):
        message_id, payload = self.way[sender][at]
        sid, number = keys.crypto.unb64url(payload["s"]), payload["i"]
        known = receiver.find(sid)
        fresh = [one for one in receiver.unconfirmed if one[0] == sid and self.now < one[1] + 60]
        expected = known[1] if known else 0
        opens = bool(known or fresh) and expected <= number <= expected + 4096
        try:
            opened = receiver.end.open(self.at(), "x", message_id, payload)
        except v3.OpenError as error:
            assert not opens, (error, message_id, receiver.sessions)
            return
        assert opens and opened.skipped == number - expected and opened.payload == {"n": int(message_id)}
        assert (message_id, receiver.generation) not in receiver.opened
        receiver.opened.add((message_id, receiver.generation))
        if known:
            known[1] = number + 1
            receiver.clean()
            return
        place = receiver.unconfirmed.index(fresh[0])
        del receiver.unconfirmed[: place + 1]
        receiver.confirm(sid, number + 1)
        assert opened.confirmed and receiver.end.sessions.sid == sid

    def open_session(self):
        self.now += 5
        self.device.end.handle_complaint()
        self.count += 1
        message_id = f"o{self.count}"
        opening = self.device.end.poll_opening(self.at(), self.rng.randbytes, message_id)
        assert (opening is not None) is self.device.drained
        if opening:
            self.newest_opening = message_id
            self.openings.append((message_id, opening))

    def deliver_opening(self, newest=False):
        message_id, opening = self.openings[-1] if newest else self.rng.choice(self.openings[-3:] if self.rng.random() < 0.7 else self.openings)
        self.answered = [at for at in self.answered if self.now < at + 60]
        try:
            answer = self.agent.end.handle_opening(self.at(), self.rng.randbytes, message_id, opening)
        except HandshakeError:
            pytest.fail("an opening of its own device is refused")
        assert (answer is None) is (len(self.answered) >= 12)
        if answer:
            self.answered.append(self.now)
            self.answers.append((message_id, answer))
            self.agent.unconfirmed.append((self.agent.end.unconfirmed[-1].receiving.sid, self.now))
            del self.agent.unconfirmed[:-2]

    def deliver_answer(self, newest=False):
        message_id, answer = self.answers[-1] if newest else self.rng.choice(self.answers[-3:])
        agreed = self.device.end.handle_answer(self.at(), answer)
        assert agreed is (message_id == self.newest_opening)
        if agreed:
            self.newest_opening = None
            self.device.confirm(self.device.end.sessions.sid, 0)

    def handshake(self):
        """A whole one, as an honest relay lets it happen."""
        if not self.device.drained:
            return
        self.open_session()
        self.deliver_opening(newest=True)
        if self.answers and self.answers[-1][0] == self.newest_opening:
            self.deliver_answer(newest=True)
            self.seal(self.device)
            if self.rng.random() < 0.7:
                self.deliver(self.device, self.agent, len(self.way[self.device]) - 1)

    def set_back(self, side):
        """The process ends, and begins with what was stored last, or long before: a backup, a copied profile."""
        state, sessions = side.kept[-1] if self.rng.random() < 0.5 else self.rng.choice(side.kept)
        side.sessions = [list(one) for one in sessions]
        side.unconfirmed, side.drained = [], False
        side.generation += 1
        if side is self.device:
            side.end, self.newest_opening = v3.DeviceEnd.load(state), None
            side.end.handle_agent(True)
        else:
            side.end, self.answered = v3.AgentEnd.load(TOKEN, self.agent_key, state), []

    def connect(self, side):
        side.end.handle_connected()
        side.drained = False
        if side is self.device:
            self.newest_opening = None
            side.end.handle_agent(True)

    def drain(self, side):
        side.end.handle_drained()
        side.drained = True
        side.clean()

    def step(self):
        side, draw = self.rng.choice((self.device, self.agent)), self.rng.random()
        other = self.agent if side is self.device else self.device
        if draw < 0.35:
            for _ in range(self.rng.choice([1, 1, 2, 5, 70])):
                self.seal(side)
        elif draw < 0.75 and self.way[other]:
            first = max(0, len(self.way[other]) - self.rng.choice([1, 3, 20, 100_000]))
            for at in range(first, min(first + 10, len(self.way[other]))):
                if self.rng.random() < 0.8:
                    self.deliver(other, side, at)
        elif draw < 0.78:
            self.open_session()
        elif draw < 0.82:
            self.handshake()
        elif draw < 0.86 and self.openings:
            self.deliver_opening()
        elif draw < 0.91 and self.answers:
            self.deliver_answer()
        elif draw < 0.93:
            self.keep(side)
        elif draw < 0.95:
            self.set_back(side)
        elif draw < 0.97:
            self.connect(side)
        else:
            self.drain(side)
        self.now += self.rng.choice([0, 0, 0.1, 2])
        assert [(one.sid, one.chain.next) for one in side.end.sessions.receiving] == [(s, n) for s, n, _ in side.sessions]


@pytest.mark.parametrize("part", range(3))
def test_a_message_opens_if_and_only_if_the_model_says_so(part):
    fixed = os.environ.get("CORALMUX_SOAK_SEED")
    first = random.randrange(1 << 32)
    for seed in [fixed] if fixed else range(first, first + max(1, RUNS // 3)):
        model = Model(str(seed))
        try:
            for _ in range(STEPS):
                model.step()
        except BaseException:
            print(f"CORALMUX_SOAK_SEED={seed}")
            raise
