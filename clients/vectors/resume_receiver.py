"""Scripted cases of a receiver for resume.json: what PROTOCOL.md's chapter "Resume" says, worked out by hand.

PROTOCOL.md describes the form of the steps, under "Test vectors". Nothing here computes what a client has to do: each
expectation is written down.
"""

from resume_plaintexts import A, B, C, D, E

MIB = 1 << 20


def record(at, n, *, e=A, f=None, b=1, o=None, size=None, taken=(), held=0, missed=0, acks=()):
    values = {"e": e, "n": n, "f": n if f is None else f, "b": b}
    more = {name: value for name, value in (("o", o), ("size", size)) if value is not None}
    return {"at": at, "do": "record", "record": values | more} | seen(taken, held, missed, acks)


def seen(taken=(), held=0, missed=0, acks=()):
    return {"taken": list(taken), "held": held, "missed": missed, "acks": [a for a in acks]}


def step(at, do, **expected):
    return {"at": at, "do": do} | seen(**expected)


def ack(n, e=A, r=False, x=None):
    return {"a": {"e": e, "n": n} | ({"x": x} if x else {})} | ({"r": True} if r else {})


def drains(at):
    """A new connection, on which the relay hands out what it has kept. The peer counts as absent."""
    return step(at, "drains")


def page(at, upto, left, confirm, **expected):
    """The end of a page, and what is confirmed to the relay after it."""
    return step(at, "mail", **expected) | {"upto": upto, "left": left, "confirm": confirm}


def back(at, n, **more):
    """The peer is there, and keys are agreed."""
    return step(at, "agreed", acks=[ack(n, r=True, **more)])


def position(e, n):
    return {"e": e, "n": n}


def receiver_case(name, steps, ext=True):
    return {"name": name, "ext": ext, "steps": steps}


def many(at, first, last, **more):
    """Records in order, each taken at once."""
    return [record(at, n, taken=[n], **more) for n in range(first, last + 1)]


def receiver_cases():
    return [
        receiver_case(
            "in order: an ack is due 1 s after the first that none covers",
            [
                record(0, 1, taken=[1]),
                step(999, "time"),
                step(1000, "time", acks=[ack(1)]),
                step(5000, "time"),
                record(5000, 2, taken=[2]),
                record(5600, 3, taken=[3]),
                step(5999, "time"),
                step(6000, "time", acks=[ack(3)]),
                step(60_000, "time"),
            ],
        ),
        receiver_case(
            "an ack is due after 64 messages",
            [*many(0, 1, 63), record(10, 64, taken=[64], acks=[ack(64)]), step(2000, "time")],
        ),
        receiver_case(
            "an ack is due after 128 KiB",
            [
                record(0, 1, size=60_000, taken=[1]),
                record(1, 2, size=60_000, taken=[2]),
                record(2, 3, size=60_000, taken=[3], acks=[ack(3)]),
                record(3, 4, size=200_000, taken=[4], acks=[ack(4)]),
                step(2000, "time"),
            ],
        ),
        receiver_case(
            "a record that leaves has the acknowledgement, and no ack is due for it",
            [
                *many(0, 1, 40),
                step(500, "carry", acks=[ack(40)]),
                step(1500, "time"),
                *many(1500, 41, 103),
                record(1600, 104, taken=[104], acks=[ack(104)]),
            ],
        ),
        receiver_case(
            "without ext: at most one ack in 10 s",
            [
                record(0, 1, taken=[1]),
                step(1000, "time", acks=[ack(1)]),
                *many(1100, 2, 70),
                step(2100, "time"),
                step(10_999, "time"),
                step(11_000, "time", acks=[ack(70)]),
                record(30_000, 71, taken=[71]),
                step(30_999, "time"),
                step(31_000, "time", acks=[ack(71)]),
            ],
            ext=False,
        ),
        receiver_case(
            "without ext: an ack with r leaves all the same",
            [
                record(0, 1, taken=[1]),
                step(1000, "time", acks=[ack(1)]),
                record(1500, 3, held=1, acks=[ack(1, r=True)]),
                record(1600, 2, taken=[2, 3]),
            ],
            ext=False,
        ),
        receiver_case(
            "a boot that it does not know begins at b",
            [
                record(0, 7, b=7, taken=[7]),
                step(1000, "time", acks=[ack(7)]),
                record(2000, 1, e=B, taken=[1]),
                step(3000, "time", acks=[ack(1, e=B)]),
                record(4000, 20, e=C, f=15, b=12, held=1, acks=[ack(11, e=C, r=True)]),
                record(4100, 14, e=C, f=12, b=12, taken=[14, 20]),
                step(5100, "time", acks=[ack(20, e=C)]),
            ],
        ),
        receiver_case(
            "void numbers before a record are taken with it",
            [
                record(0, 1, taken=[1]),
                record(10, 9, f=2, b=2, taken=[9]),
                record(20, 9, f=2, b=2),
                record(30, 12, f=8, b=8, taken=[12]),
                step(1000, "time", acks=[ack(12)]),
            ],
        ),
        receiver_case(
            "b above the next number: what is between is missed",
            [
                record(0, 1, taken=[1]),
                record(10, 5, b=5, missed=3, taken=[5]),
                record(20, 9, f=8, b=7, missed=1, held=1, acks=[ack(6, r=True)]),
                record(30, 7, b=7, taken=[7, 9]),
                record(40, 20, f=15, b=14, missed=4, held=1),
                record(50, 14, b=14, taken=[14, 20]),
                step(1050, "time", acks=[ack(20)]),
            ],
        ),
        receiver_case(
            "what is held and then given up is missed",
            [
                record(0, 1, taken=[1]),
                record(10, 3, held=1, acks=[ack(1, r=True)]),
                record(20, 6, b=5, missed=3, held=1),
                record(30, 5, b=5, taken=[5, 6]),
            ],
        ),
        receiver_case(
            "what it has comes again: it is dropped and acknowledged",
            [
                record(0, 1, taken=[1]),
                step(1000, "time", acks=[ack(1)]),
                record(3000, 1),
                step(3999, "time"),
                step(4000, "time", acks=[ack(1)]),
                *many(5000, 2, 3),
                record(5001, 2),
                record(5002, 1),
                step(6000, "time", acks=[ack(3)]),
            ],
        ),
        receiver_case(
            "something is missing: held, asked for at once and every 2 s, and taken in order",
            [
                record(0, 1, taken=[1]),
                record(100, 3, held=1, acks=[ack(1, r=True)]),
                record(200, 6, held=2),
                record(300, 5, held=3),
                step(2099, "time", held=3),
                step(2100, "time", held=3, acks=[ack(1, r=True)]),
                record(2200, 2, held=2, taken=[2, 3]),
                record(2300, 4, taken=[4, 5, 6]),
                step(3199, "time"),
                step(3200, "time", acks=[ack(6)]),
                step(10_000, "time"),
                record(10_000, 8, held=1, acks=[ack(6, r=True)]),
                record(10_000, 7, taken=[7, 8]),
                step(11_000, "time", acks=[ack(8)]),
            ],
        ),
        receiver_case(
            "a held message is replaced by the same with a lower f",
            [
                record(0, 1, taken=[1]),
                record(100, 6, f=6, held=1, acks=[ack(1, r=True)]),
                record(200, 6, f=4, held=1),
                record(300, 3, f=2, taken=[3, 6]),
                record(400, 9, f=9, held=1),
                record(500, 9, f=7, taken=[9]),
                step(1300, "time", acks=[ack(9)]),
            ],
        ),
        receiver_case(
            "256 messages are held, and what does not fit comes again",
            [
                record(0, 2, held=1, acks=[ack(0, r=True)]),
                *[record(0, n, held=n - 1) for n in range(3, 258)],
                record(0, 258, held=256),
                record(0, 300, held=256),
                record(0, 257, held=256),
                record(10, 1, taken=list(range(1, 258)), acks=[ack(257)]),
                record(20, 258, taken=[258]),
            ],
        ),
        receiver_case(
            "1 MiB is held, and what does not fit comes again",
            [
                record(0, 2, size=600_000, held=1, acks=[ack(0, r=True)]),
                record(0, 3, size=600_000, held=1),
                record(0, 4, size=300_000, held=2),
                record(0, 2, size=600_000, held=2),
                record(10, 1, taken=[1, 2], held=1, acks=[ack(2)]),
                record(20, 3, size=600_000, taken=[3, 4], acks=[ack(4)]),
                record(30, 6, size=2 * MIB),
                step(1999, "time"),
                step(2000, "time", acks=[ack(4, r=True)]),
                record(2010, 5, taken=[5]),
                step(3010, "time", acks=[ack(5)]),
                step(4000, "time"),
                record(4100, 6, size=2 * MIB, taken=[6], acks=[ack(6)]),
                step(20_000, "time"),
            ],
        ),
        receiver_case(
            "a new agreement drops what is held, and nothing is missed by that",
            [
                record(0, 1, taken=[1]),
                record(100, 3, held=1, acks=[ack(1, r=True)]),
                step(200, "agreed", acks=[ack(1, r=True)]),
                record(300, 2, taken=[2]),
                record(400, 3, taken=[3]),
                step(1300, "time", acks=[ack(3)]),
            ],
        ),
        receiver_case(
            "before anything has been taken",
            [
                step(0, "agreed", acks=[{"a": {"e": "", "n": 0}, "r": True}]),
                record(5000, 5, f=3, b=2, held=1, acks=[ack(1, r=True)]),
                record(5100, 2, b=2, taken=[2, 5]),
            ],
        ),
        receiver_case(
            "two pages take turns: a boot comes back, and is known",
            [
                *many(0, 1, 3),
                record(100, 1, e=B, taken=[1]),
                record(200, 3),
                record(300, 4, b=3, taken=[4]),
                record(400, 2, e=B, b=2, taken=[2]),
                step(1000, "time", acks=[ack(2, e=B)]),
            ],
        ),
        receiver_case(
            "what is held of one boot is dropped with the next",
            [
                record(0, 2, held=1, acks=[ack(0, r=True)]),
                record(100, 1, e=B, taken=[1]),
                record(200, 1, taken=[1]),
                record(300, 2, taken=[2]),
            ],
        ),
        receiver_case(
            "the last 4 boots are known; the fifth pushes the oldest out",
            [
                record(0, 1, e=A, taken=[1]),
                record(10, 1, e=B, taken=[1]),
                record(20, 1, e=C, taken=[1]),
                record(30, 1, e=D, taken=[1]),
                record(40, 1, e=A),
                record(50, 1, e=E, taken=[1]),
                record(60, 1, e=A),
                record(70, 1, e=C),
                record(80, 1, e=D),
                record(90, 1, e=E),
                record(100, 1, e=B, taken=[1]),
            ],
        ),
        receiver_case(
            "o: what an earlier process numbered and this end has taken is dropped, the rest is taken",
            [
                *many(0, 1, 2),
                record(100, 1, e=B, o=position(A, 2)),
                record(110, 2, e=B, o=position(A, 3), taken=[2]),
                record(120, 3, e=B, taken=[3]),
                record(130, 1, e=C, o=position(A, 3)),
                record(140, 2, e=C, o=position(A, 5), taken=[2]),
                record(150, 3, e=C, o=position(A, 4)),
                step(1000, "time", acks=[ack(3, e=C)]),
            ],
        ),
        receiver_case(
            "o: of a boot that it did not know, and knows from then on",
            [
                record(0, 1, e=B, o=position(A, 7), taken=[1]),
                record(10, 1, e=C, o=position(A, 7)),
                record(20, 2, e=C, o=position(A, 8), taken=[2]),
            ],
        ),
        receiver_case(
            "o: a record that is held is looked at when it is its turn",
            [
                record(0, 1, taken=[1]),
                record(10, 2, e=B, o=position(A, 2), held=1, acks=[ack(0, e=B, r=True)]),
                record(20, 1, e=B, o=position(A, 1), taken=[2]),
                step(1020, "time", acks=[ack(2, e=B)]),
            ],
        ),
        ] + mail_cases()


def mail_cases():
    """What the relay has kept."""
    sixteen = [[2 * n, 2 * n] for n in range(1, 17)]
    return [
        receiver_case(
            "a drain: taken in order, confirmed page by page, and acknowledged when the peer is there",
            [
                *many(0, 1, 2),
                drains(100),
                record(110, 2),
                *many(120, 3, 4),
                page(130, 4, 2, 4),
                *many(140, 5, 6),
                page(150, 9, 0, 9),
                step(9000, "time"),
                back(9000, 6),
            ],
        ),
        receiver_case(
            "a drain in which there was nothing: there is nothing to confirm",
            [record(0, 1, taken=[1]), drains(100), page(110, 0, 0, None), back(120, 1)],
        ),
        receiver_case(
            "a drain: what is early waits for what is behind it, and is not asked for",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, held=1),
                record(5000, 2, taken=[2, 3]),
                page(5010, 2, 0, 2),
                back(5020, 3),
            ],
        ),
        receiver_case(
            "a drain: what is early waits for one page more, and its page is confirmed with that one",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, held=1),
                page(120, 1, 3, None, held=1),
                record(130, 2, taken=[2, 3]),
                page(140, 2, 2, 2),
                back(150, 3),
            ],
        ),
        receiver_case(
            "a drain: what has not come by the end of that page never came, and x says so",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 4, held=1),
                page(120, 1, 3, None, held=1),
                record(130, 6, held=2),
                page(140, 2, 2, 2, taken=[4, 6], missed=3),
                record(150, 2),
                record(160, 5),
                record(170, 7, taken=[7]),
                page(180, 5, 0, 5),
                back(190, 7, x=[[2, 3], [5, 5]]),
                record(200, 8, b=5, taken=[8]),
                step(1200, "time", acks=[ack(8, x=[[5, 5]])]),
                record(1300, 9, b=6, taken=[9]),
                step(2300, "time", acks=[ack(9)]),
            ],
        ),
        receiver_case(
            "a drain: what has not come by its end never came",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, held=1),
                page(120, 1, 0, 1, taken=[3], missed=1),
                back(130, 3, x=[[2, 2]]),
                record(140, 2),
                step(2000, "time", acks=[ack(3, x=[[2, 2]])]),
            ],
        ),
        receiver_case(
            "a drain: b is above what has not come: x has nothing of it",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 5, b=3, missed=1, held=1),
                page(120, 1, 0, 1, taken=[5], missed=2),
                back(130, 5, x=[[3, 4]]),
            ],
        ),
        receiver_case(
            "a drain: what is held of one boot is taken before the next",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, held=1),
                record(120, 1, e=B, taken=[3, 1], missed=1),
                page(130, 2, 0, 2),
                back(140, 1, e=B),
                record(150, 4, taken=[4]),
                step(2000, "time", acks=[ack(4, x=[[2, 2]])]),
            ],
        ),
        receiver_case(
            "a drain: the presence of the peer changes, and what is held stays",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, held=1),
                step(115, "pause", held=1),
                record(120, 2, taken=[2, 3]),
                page(130, 2, 0, 2),
                back(140, 3),
            ],
        ),
        receiver_case(
            "a drain: what finds no room among what is held ends the waiting",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 3, size=600_000, held=1),
                record(120, 5, size=600_000, taken=[3], missed=1, held=1),
                page(130, 3, 0, 3, taken=[5], missed=1),
                back(140, 5, x=[[2, 2], [4, 4]]),
            ],
        ),
        receiver_case(
            "x has 16 ranges: what would be the 17th is not taken, and comes again",
            [
                record(0, 1, taken=[1]),
                drains(100),
                *[record(110, n, held=at + 1) for at, n in enumerate(range(3, 37, 2))],
                page(120, 20, 0, 20, taken=list(range(3, 34, 2)), missed=16),
                back(130, 33, x=sixteen),
                record(140, 34, b=34, taken=[34]),
                record(150, 35, b=34, taken=[35]),
                step(2000, "time", acks=[ack(35)]),
            ],
        ),
        receiver_case(
            "x: ranges that touch are one",
            [
                record(0, 1, taken=[1]),
                drains(100),
                record(110, 4, held=1),
                record(120, 1, e=B, taken=[4, 1], missed=2),
                record(130, 7, held=1),
                record(140, 9, held=2),
                page(150, 9, 0, 9, taken=[7, 9], missed=3),
                back(160, 9, x=[[2, 3], [5, 6], [8, 8]]),
            ],
        ),
        receiver_case(
            "a page that begins unasked, for it was parked: nothing is given up",
            [
                record(0, 1, taken=[1]),
                record(100, 3, held=1, acks=[ack(1, r=True)]),
                page(110, 3, 0, 3, held=1),
                record(120, 2, taken=[2, 3]),
                step(2000, "time", acks=[ack(3)]),
            ],
        ),
    ]
