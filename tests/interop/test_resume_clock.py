"""Resuming over time that is passed in: how often acknowledgements leave, and that silence of any length ends nothing."""

import random

from coralmux.records import NOTHING, Ack, read_record
from coralmux.resume import Resume
from coralmux.wire import loads


class Pair:
    """A phone and an agent without a network between them; what leaves arrives at once."""

    def __init__(self):
        self.now, self.taken, self.acks, self.resent = 0.0, [], 0, 0
        self.ends = [Resume(role, random.Random(role).randbytes) for role in ("phone", "agent")]
        self.seen = set()

    def agree(self):
        for end in self.ends:
            end.handle_agreed()
        self.pump()

    def lose(self):
        for end in self.ends:
            end.handle_pause()

    def pump(self):
        busy = True
        while busy:
            busy = False
            for sender, receiver in (self.ends, self.ends[::-1]):
                while leaving := sender.poll(self.now):
                    busy = True
                    if isinstance(leaving, Ack):
                        self.acks += 1
                        receiver.handle_ack(self.now, leaving)
                        continue
                    self.resent += (leaving.e, leaving.n) in self.seen
                    self.seen.add((leaving.e, leaving.n))
                    record = read_record(loads(sender.text(leaving)))
                    taken, missed = receiver.handle_record(self.now, record, 100, record.p["text"])
                    assert missed == 0
                    self.taken += taken

    def run(self, until, step=0.05):
        """Time passes, and each end is asked when it wanted to be."""
        while self.now < until:
            due = [at for end in self.ends if (at := end.deadline()) is not None]
            self.now = min([until, self.now + step, *due])
            self.pump()

    def say(self, end, text):
        self.ends[end].sender.push("chat.note", text, {"text": text})
        self.pump()


def test_a_stream_of_a_minute_takes_less_than_80_acknowledgements_and_silence_none():
    pair = Pair()
    pair.agree()
    assert pair.acks == 2 and pair.ends[0].receiver.position == NOTHING
    pair.acks = 0
    for number in range(60 * 80):  # 80 pieces a second
        pair.run(number / 80)
        pair.say(1, str(number))
    assert pair.taken == [str(number) for number in range(60 * 80)]
    pair.run(62)
    assert 60 <= pair.acks < 80 and pair.resent == 0
    assert all(end.sender.is_idle for end in pair.ends)
    pair.acks = 0
    pair.run(122)
    assert pair.acks == 0


def test_after_an_hour_of_silence_a_break_is_resumed():
    """What was under way at the break arrives, once; the position has not aged."""
    pair = Pair()
    pair.agree()
    for number in range(10):
        pair.say(number % 2, str(number))
    pair.run(3600, step=10)
    pair.acks = 0
    pair.lose()
    pair.say(0, "asked while nobody was there")
    pair.run(2 * 3600, step=10)
    pair.agree()
    assert pair.taken == [*map(str, range(10)), "asked while nobody was there"] and pair.resent == 0
    pair.say(1, "the answer")
    pair.run(2 * 3600 + 5)
    assert pair.taken[-1] == "the answer" and all(end.sender.is_idle for end in pair.ends)
    assert pair.acks <= 4
