"""Scripted cases of a sender, and of the agreement of both ends, for resume.json: worked out by hand, as
resume_receiver.py."""

from resume_plaintexts import A, B, OWN

MIB = 1 << 20
T0 = 1_770_580_800_000  # Unix time in ms at which the clock of the steps is 0


def out(n, what, *, e=OWN, f=None, b=1, delta=None, keep=None, at=None):
    """`keep`: what the envelope has beside its type; `at`: when its owner sent it, for `t`."""
    more = {} if delta is None else {"delta": delta}
    more |= {} if keep is None else {"keep": keep}
    more |= {} if at is None else {"t": T0 + at}
    return {"e": e, "n": n, "f": n if f is None else f, "b": b, "is": what} | more


def sender_case(name, steps, role="agent", boots=(OWN,), mail=None):
    """It begins with keys that are agreed, and with the peer's first ack. `mail`: of how many bytes the payloads may be
    that the relay keeps."""
    more = {} if mail is None else {"mail": mail}
    return {"name": name, "role": role, "boots": list(boots)} | more | {"steps": steps}


def do(at, what, outs=(), told=(), given_up=(), **more):
    told, given_up = list(told), list(given_up)
    step = {"at": at, "do": what} | more | {"out": list(outs)}
    return step | ({"told": told} if told else {}) | ({"given_up": given_up} if given_up else {})


def send(at, message_id, *outs, **more):
    return do(at, "send", outs, id=message_id, **more)


def sent(at, n, message_id, b=1, **more):
    """A message that leaves at once."""
    return send(at, message_id, out(n, message_id, b=b), **more)


def piece(at, answer, delta, *outs):
    return do(at, "piece", outs, answer=answer, delta=delta)


def streamed(at, n, answer, delta, b=1):
    """A piece that leaves at once."""
    return piece(at, answer, delta, out(n, answer, b=b, delta=delta))


def done(at, answer, message_id, *outs, **more):
    return do(at, "done", outs, answer=answer, id=message_id, **more)


def taken(at, n, *outs, e=OWN, r=False, **more):
    return do(at, "ack", outs, a={"e": e, "n": n}, **({"r": True} if r else {}), **more)


def refused(at, message_id, code, *outs, **more):
    return do(at, "refused", outs, id=message_id, code=code, **more)


def sender_cases():
    return [
        sender_case(
            "numbers from 1, and holds what is not acknowledged",
            [
                sent(0, 1, "m1"),
                sent(10, 2, "m2"),
                taken(20, 1),
                sent(30, 3, "m3", b=2),
                taken(40, 3),
                sent(50, 4, "m4", b=4),
                do(100_000, "time"),
            ],
        ),
        sender_case(
            "a request: everything above the acknowledged number, in order; at most once a second",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 5)],
                taken(10, 1, *[out(n, f"m{n}", b=2) for n in (2, 3, 4)], r=True),
                taken(20, 2, r=True),
                send(30, "m5"),
                do(1009, "time"),
                do(1010, "time", [out(3, "m3", b=3), out(4, "m4", b=3), out(5, "m5", b=3)]),
                do(60_000, "time"),
                taken(60_000, 5, r=True),
                sent(60_010, 6, "m6", b=6),
            ],
        ),
        sender_case(
            "a request is counted anew from an agreement",
            [
                sent(0, 1, "m1"),
                taken(10, 0, out(1, "m1"), r=True),
                do(100, "pause"),
                send(110, "m2"),
                do(120, "agreed"),
                taken(130, 0, out(1, "m1"), out(2, "m2"), r=True),
            ],
        ),
        sender_case(
            "nothing numbered leaves between a break and the peer's first ack",
            [
                sent(0, 1, "m1"),
                do(10, "pause"),
                send(20, "m2"),
                do(5000, "time"),
                do(6000, "agreed"),
                send(6010, "m3"),
                do(7000, "time"),
                taken(7100, 1, out(2, "m2", b=2), out(3, "m3", b=2), r=True),
            ],
        ),
        sender_case(
            "an agent's window: 256 messages",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 257)],
                send(10, "m257"),
                send(10, "m258"),
                taken(20, 1, out(257, "m257", b=2)),
                taken(30, 257, out(258, "m258", b=258)),
            ],
        ),
        sender_case(
            "an agent's window: 192 KiB, and one message always",
            [
                sent(0, 1, "m1", size=100_000),
                send(0, "m2", size=100_000),
                send(0, "m3"),
                taken(10, 1, out(2, "m2", b=2), out(3, "m3", b=2)),
                taken(20, 3),
                sent(30, 4, "m4", b=4, size=3 * MIB),
                send(40, "m5"),
                taken(50, 4, out(5, "m5", b=5)),
            ],
        ),
        sender_case(
            "a phone's window: 64 messages",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 65)],
                send(10, "m65"),
                taken(20, 63, out(65, "m65", b=64)),
            ],
            role="phone",
        ),
        sender_case(
            "a phone's window: 16 MiB",
            [
                *[sent(0, n, f"m{n}", size=3 * MIB) for n in range(1, 6)],
                send(0, "m6", size=3 * MIB),
                taken(20, 1, out(6, "m6", b=2)),
            ],
            role="phone",
        ),
        sender_case(
            "pieces grow while they wait, one for each answer",
            [
                sent(0, 1, "m1", size=190_000),
                piece(0, "X", "y" * 9000),
                piece(0, "Y", "a"),
                piece(0, "X", "b"),
                piece(0, "Y", "c"),
                taken(10, 1, out(2, "X", b=2, delta="y" * 9000 + "b"), out(3, "Y", b=2, delta="ac")),
                streamed(20, 4, "X", "d", b=2),
            ],
        ),
        sender_case(
            "an answer ends: its pieces become void, and its done says so",
            [
                streamed(0, 1, "X", "a"),
                streamed(0, 2, "X", "b"),
                streamed(0, 3, "X", "c"),
                taken(10, 1),
                done(20, "X", "d1", out(4, "d1", f=2, b=2)),
                sent(30, 5, "m1", b=2),
                taken(40, 0, out(4, "d1", f=2, b=2), out(5, "m1", b=2), r=True),
                taken(50, 2),
                taken(1050, 2, out(4, "d1", f=3, b=3), out(5, "m1", b=3), r=True),
                taken(1060, 4),
                sent(1070, 6, "m2", b=5),
            ],
        ),
        sender_case(
            "two answers at once: each record has the void numbers directly before it",
            [
                streamed(0, 1, "X", "a"),
                streamed(0, 2, "Y", "b"),
                streamed(0, 3, "X", "c"),
                streamed(0, 4, "Y", "d"),
                streamed(0, 5, "X", "e"),
                done(10, "X", "d1", out(6, "d1", f=5)),
                taken(20, 0, out(2, "Y", f=1, delta="b"), out(4, "Y", f=3, delta="d"), out(6, "d1", f=5), r=True),
                done(30, "Y", "d2", out(7, "d2", f=7)),
                taken(1020, 0, out(6, "d1", f=1), out(7, "d2", f=7), r=True),
            ],
        ),
        sender_case(
            "an answer that ends with an error keeps its pieces",
            [
                streamed(0, 1, "X", "a"),
                do(10, "pause"),
                piece(20, "X", "b"),
                do(30, "error", answer="X", id="e1"),
                do(40, "agreed"),
                taken(50, 0, out(1, "X", delta="a"), out(2, "X", delta="b"), out(3, "e1"), r=True),
            ],
        ),
        sender_case(
            "void numbers do not fill the window",
            [
                *[streamed(0, n, "X", "a") for n in range(1, 257)],
                piece(10, "X", "b"),
                done(20, "X", "d1", out(257, "d1", f=1)),
                sent(30, 258, "m1"),
            ],
        ),
        sender_case(
            "refused with a rate: it and what follows leave again, in order, after the time, one by one",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 5)],
                taken(10, 1),
                refused(20, "m3", "RATE_LIMITED", retry_after_ms=2000),
                send(30, "m5"),
                taken(40, 2),
                do(2019, "time"),
                do(2020, "time", [out(3, "m3", b=3)]),
                send(2025, "m6"),
                taken(2030, 3, out(4, "m4", b=4)),
                taken(2040, 4, out(5, "m5", b=5), out(6, "m6", b=5)),
                taken(2050, 6),
                sent(2060, 7, "m7", b=7),
            ],
        ),
        sender_case(
            "one by one: none leaves while an earlier one is not acknowledged",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 5)],
                refused(20, "m3", "RATE_LIMITED", retry_after_ms=1000),
                do(1020, "time"),
                taken(1100, 1),
                taken(1200, 2, out(3, "m3", b=3)),
                refused(1210, "m3", "RATE_LIMITED", retry_after_ms=1000),
                taken(1220, 2, r=True),
                do(2209, "time"),
                do(2210, "time", [out(3, "m3", b=3)]),
                do(2300, "agreed"),
                taken(2310, 2, out(3, "m3", b=3), r=True),
                taken(2320, 3, out(4, "m4", b=4)),
                taken(2330, 4),
                sent(2340, 5, "m5", b=5),
                sent(2350, 6, "m6", b=5),
            ],
        ),
        sender_case(
            "one by one, pieces aside: they have a rate of their own",
            [
                sent(0, 1, "m1"),
                streamed(0, 2, "X", "a"),
                streamed(0, 3, "X", "b"),
                sent(0, 4, "m2"),
                refused(10, "m1", "RATE_LIMITED", retry_after_ms=1000),
                do(1010, "time", [out(1, "m1"), out(2, "X", delta="a"), out(3, "X", delta="b")]),
                taken(1020, 1, out(4, "m2", b=2)),
                streamed(1030, 5, "X", "c", b=2),
                send(1040, "m3"),
                taken(1050, 4, out(6, "m3", b=5)),
            ],
        ),
        sender_case(
            "refused one by one, and asked for meanwhile: nothing leaves before the time",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 4)],
                refused(10, "m2", "DAILY_QUOTA_EXCEEDED", retry_after_ms=5000),
                refused(20, "m3", "DAILY_QUOTA_EXCEEDED", retry_after_ms=5000),
                taken(30, 0, r=True),
                do(5019, "time"),
                do(5020, "time", [out(1, "m1")]),
                taken(5030, 2, out(3, "m3", b=3)),
            ],
        ),
        sender_case(
            "set back while messages leave one by one: they still do",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 4)],
                refused(10, "m1", "RATE_LIMITED", retry_after_ms=1000),
                taken(1010, 7, out(1, "m1", e=B)),
                taken(1020, 1, out(2, "m2", e=B, b=2), e=B),
                taken(1030, 2, out(3, "m3", e=B, b=3), e=B),
            ],
            boots=(OWN, B),
        ),
        sender_case(
            "an unknown code changes nothing: the message is held, and leaves again when the peer asks for it",
            [
                sent(0, 1, "m1"),
                refused(10, "m1", "NEWER_THAN_THIS", retry_after_ms=5000),
                refused(20, "m1", ""),
                sent(30, 2, "m2"),
                do(60_000, "time"),
                taken(60_010, 0, out(1, "m1"), out(2, "m2"), r=True),
            ],
        ),
        sender_case(
            "refused because nobody is there: it waits for the next agreement",
            [
                sent(0, 1, "m1"),
                refused(10, "m1", "PEER_OFFLINE"),
                send(20, "m2"),
                do(60_000, "time"),
                do(60_000, "agreed"),
                taken(60_010, 0, out(1, "m1"), out(2, "m2"), r=True),
            ],
        ),
        sender_case(
            "refused for good: it becomes void, and its owner is told",
            [
                *[sent(0, n, f"m{n}") for n in range(1, 4)],
                refused(10, "m2", "MESSAGE_TOO_LARGE", told=["m2"]),
                taken(20, 1, out(3, "m3", f=2, b=2), r=True),
                refused(30, "m3", "INVALID_MESSAGE", told=["m3"]),
                sent(40, 4, "m4", b=2) | {"out": [out(4, "m4", f=2, b=2)]},
                refused(50, "unknown", "RATE_LIMITED", retry_after_ms=9000),
                sent(60, 5, "m5", b=2),
            ],
        ),
        sender_case(
            "an absent phone: pieces grow and are dropped with the done, the rest waits",
            [
                sent(0, 1, "m1"),
                streamed(0, 2, "X", "a"),
                do(10, "pause"),
                piece(20, "X", "b"),
                piece(30, "X", "c"),
                piece(30, "Y", "d"),
                send(40, "m2"),
                done(50, "X", "d1"),
                piece(60, "Y", "e"),
                do(100, "agreed"),
                taken(
                    110,
                    0,
                    out(1, "m1"),
                    out(3, "Y", f=2, delta="de"),
                    out(4, "m2"),
                    out(5, "d1"),
                    r=True,
                ),
            ],
        ),
        sender_case(
            "an absent phone: beyond 256 messages the oldest are given up",
            [
                sent(0, 1, "m1"),
                sent(0, 2, "m2"),
                do(10, "pause"),
                *[send(20, f"m{n}") for n in range(3, 257)],
                send(20, "m257", given_up=["m1"]),
                send(20, "m258", given_up=["m2"]),
                send(20, "m259", given_up=["m3"]),
                do(30, "agreed"),
                taken(40, 0, *[out(n, f"m{n}", b=4) for n in range(4, 260)], r=True),
            ],
        ),
        sender_case(
            "an absent phone: beyond 8 MiB the oldest are given up",
            [
                do(0, "pause"),
                send(0, "m1", size=3 * MIB),
                send(0, "m2", size=3 * MIB),
                send(0, "m3", size=3 * MIB, given_up=["m1"]),
                do(30, "agreed"),
                taken(40, 0, out(2, "m2", b=2), r=True),
                taken(50, 2, out(3, "m3", b=3)),
            ],
        ),
        sender_case(
            "an acknowledgement of another boot counts as none",
            [
                sent(0, 1, "m1"),
                sent(0, 2, "m2"),
                taken(10, 2, e=A),
                sent(20, 3, "m3"),
                taken(30, 99, *[out(n, f"m{n}") for n in (1, 2, 3)], e=A, r=True),
                do(40, "ack", a={"e": "", "n": 0}),
                taken(50, 2),
                taken(60, 1),
                sent(70, 4, "m4", b=3),
            ],
        ),
        sender_case(
            "acknowledged above what it has used: it was set back, and draws a new boot",
            [
                sent(0, 1, "m1"),
                sent(0, 2, "m2"),
                taken(10, 1),
                taken(20, 7, out(1, "m2", e=B)),
                sent(30, 2, "m3") | {"out": [out(2, "m3", e=B)]},
                taken(40, 2, e=OWN),
                taken(50, 1, e=B),
                sent(60, 3, "m4") | {"out": [out(3, "m4", e=B, b=2)]},
            ],
            boots=(OWN, B),
        ),
        ] + mail_cases()


def quiet(n, what, at=0, **more):
    return out(n, what, keep="quiet", at=at, **more)


def kept(at, message_id, *outs):
    return do(at, "kept", outs, id=message_id)


def absent(at, *outs):
    """The relay says that the peer is not there, on a connection that is."""
    return do(at, "absent", outs)


def mail_cases():
    """The relay keeps what is for an absent peer."""
    return [
        sender_case(
            "while the peer is there messages leave as ever, with keep and t",
            [
                send(0, "m1", quiet(1, "m1")),
                send(10, "m2", out(2, "m2", keep="wake", at=10), keep="wake"),
                piece(20, "X", "a", out(3, "X", delta="a")),
                do(25, "send", [out(4, "s1")], id="s1", fleeting=True),
                taken(
                    30,
                    1,
                    out(2, "m2", b=2, keep="wake", at=10),
                    out(3, "X", b=2, delta="a"),
                    out(4, "s1", b=2),
                    r=True,
                ),
            ],
            mail=100_000,
        ),
        sender_case(
            "the peer is absent: all but what is fleeting leaves in order, each when the one before is kept, once",
            [
                send(0, "m1", quiet(1, "m1")),
                piece(10, "X", "a", out(2, "X", delta="a")),
                absent(20, quiet(1, "m1")),
                send(30, "m2"),
                do(35, "send", id="s1", fleeting=True),
                send(40, "m3", keep="wake"),
                kept(50, "m1", quiet(3, "m2", 30, f=2)),
                kept(60, "m2", out(4, "m3", keep="wake", at=40)),
                kept(70, "m3"),
                do(60_000, "time"),
                send(60_010, "m4", quiet(5, "m4", 60_010)),
                kept(60_020, "m4"),
            ],
            mail=100_000,
        ),
        sender_case(
            "the peer comes back: what it lacks leaves again, kept or not",
            [
                send(0, "m1", quiet(1, "m1")),
                absent(10, quiet(1, "m1")),
                send(20, "m2"),
                kept(30, "m1", quiet(2, "m2", 20)),
                kept(40, "m2"),
                do(50, "agreed"),
                send(55, "m3"),
                taken(60, 1, quiet(2, "m2", 20, b=2), quiet(3, "m3", 55, b=2), r=True),
                absent(70, quiet(2, "m2", 20, b=2)),
                kept(80, "m2", quiet(3, "m3", 55, b=2)),
            ],
            mail=100_000,
        ),
        sender_case(
            "pieces wait while the peer is absent, and the answer's end contains them",
            [
                piece(0, "X", "a", out(1, "X", delta="a")),
                absent(10),
                piece(20, "X", "b"),
                piece(30, "Y", "c"),
                send(40, "m1", quiet(2, "m1", 40, f=1)),
                kept(50, "m1"),
                done(60, "X", "d1", out(3, "d1", keep="wake", at=60), keep="wake"),
                kept(70, "d1"),
                piece(80, "Y", "d"),
                do(90, "agreed"),
                taken(100, 3, out(4, "Y", b=4, delta="cd"), r=True),
            ],
            mail=100_000,
        ),
        sender_case(
            "an error ends an answer of an absent peer: the pieces before it are dropped",
            [
                absent(0),
                piece(10, "X", "a"),
                do(20, "error", [out(1, "e1", keep="wake", at=20)], answer="X", id="e1", keep="wake"),
                kept(30, "e1"),
                do(40, "agreed"),
                taken(50, 1, r=True),
            ],
            mail=100_000,
        ),
        sender_case(
            "the mailbox is full: nothing more is put there until the peer has been there",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                send(20, "m2"),
                send(25, "m3"),
                kept(30, "m1", quiet(2, "m2", 20)),
                refused(40, "m2", "MAILBOX_FULL"),
                do(60_000, "time"),
                do(60_000, "lost"),
                absent(70_000),
                do(80_000, "agreed"),
                taken(80_010, 1, quiet(2, "m2", 20, b=2), quiet(3, "m3", 25, b=2), r=True),
                absent(90_000, quiet(2, "m2", 20, b=2)),
            ],
            mail=100_000,
        ),
        sender_case(
            "the relay's disk is behind: again after the time, in order",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                send(20, "m2"),
                refused(30, "m1", "MAILBOX_FULL", retry_after_ms=2000),
                do(2029, "time"),
                do(2030, "time", [quiet(1, "m1", 10)]),
                kept(2040, "m1", quiet(2, "m2", 20)),
                refused(2050, "m2", "RATE_LIMITED", retry_after_ms=1000),
                do(3050, "time", [quiet(2, "m2", 20)]),
            ],
            mail=100_000,
        ),
        sender_case(
            "what is not kept for a reason that is not known is not put there again at once",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                send(20, "m2"),
                refused(30, "m1", "SOMETHING_ELSE"),
                do(30_029, "time"),
                do(30_030, "time", [quiet(1, "m1", 10)]),
                refused(30_040, "m1", "SOMETHING_ELSE", retry_after_ms=90_000),
                do(120_039, "time"),
                do(120_040, "time", [quiet(1, "m1", 10)]),
                kept(120_050, "m1", quiet(2, "m2", 20)),
                refused(120_060, "m2", "SOMETHING_ELSE", retry_after_ms=1),
                do(120_070, "agreed"),
                taken(120_080, 1, quiet(2, "m2", 20, b=2), r=True),
            ],
            mail=100_000,
        ),
        sender_case(
            "what is too long to be kept, and was on its way to a peer that left, waits for it",
            [
                send(0, "m1", quiet(1, "m1"), size=1001),
                absent(10),
                refused(20, "m1", "MESSAGE_TOO_LARGE"),
                send(30, "m2"),
                do(60_000, "agreed"),
                taken(60_010, 0, quiet(1, "m1"), quiet(2, "m2", 30), r=True),
            ],
            mail=1000,
        ),
        sender_case(
            "what is too long to be kept waits for the peer, and all that is behind it",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10), size=1000),
                send(20, "m2", size=1001),
                send(30, "m3"),
                kept(40, "m1"),
                do(50, "agreed"),
                taken(60, 1, quiet(2, "m2", 20, b=2), quiet(3, "m3", 30, b=2), r=True),
                absent(70),
                taken(75, 3),
                send(80, "m4"),
                do(85, "agreed"),
                taken(90, 3, quiet(4, "m4", 80, b=4), r=True),
                absent(100, quiet(4, "m4", 80, b=4)),
                refused(110, "m4", "MESSAGE_TOO_LARGE"),
                do(60_000, "time"),
                do(60_000, "agreed"),
                taken(60_010, 3, quiet(4, "m4", 80, b=4), r=True),
            ],
            mail=1000,
        ),
        sender_case(
            "what is kept leaves the window, and what leaves again is bound by it",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10), size=150_000),
                kept(20, "m1"),
                send(30, "m2", quiet(2, "m2", 30), size=150_000),
                kept(40, "m2"),
                do(50, "agreed"),
                taken(60, 0, quiet(1, "m1", 10), r=True),
                taken(70, 1, quiet(2, "m2", 30, b=2)),
                taken(80, 2),
            ],
            mail=1_000_000,
        ),
        sender_case(
            "beyond 256 messages the oldest are let go: the relay has them, and nobody is told",
            [
                absent(0),
                *[
                    step
                    for n in range(1, 257)
                    for step in (send(10, f"m{n}", quiet(n, f"m{n}", 10)), kept(10, f"m{n}"))
                ],
                send(20, "m257", quiet(257, "m257", 20, b=2)),
                refused(30, "m257", "MAILBOX_FULL"),
                *[send(40, f"m{n}") for n in range(258, 513)],
                send(50, "m513", given_up=["m257"]),
            ],
            mail=100_000,
        ),
        sender_case(
            "what was on its way when the peer left is kept: it is not put there again",
            [
                send(0, "m1", quiet(1, "m1")),
                send(0, "m2", quiet(2, "m2")),
                kept(10, "m2"),
                absent(20, quiet(1, "m1")),
                kept(30, "m1"),
                do(60_000, "time"),
            ],
            mail=100_000,
        ),
        sender_case(
            "the connection breaks before it is kept: it is put there on the next one",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                do(20, "lost"),
                do(1000, "connected"),
                absent(1010, quiet(1, "m1", 10)),
                kept(1020, "m1"),
            ],
            mail=100_000,
        ),
        sender_case(
            "a relay that keeps nothing after all: it waits",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                refused(20, "m1", "PEER_OFFLINE"),
                do(60_000, "time"),
                do(60_000, "agreed"),
                taken(60_010, 0, quiet(1, "m1", 10), r=True),
            ],
            mail=100_000,
        ),
        sender_case(
            "what was on its way when the peer left is refused: what is to be kept leaves all the same",
            [
                do(0, "send", [out(1, "s1")], id="s1", fleeting=True),
                absent(10),
                refused(20, "s1", "PEER_OFFLINE"),
                send(30, "m1", quiet(2, "m1", 30, f=1)),
                kept(40, "m1"),
            ],
            mail=100_000,
        ),
        sender_case(
            "x: an agent sends what never came again, under new numbers",
            [
                send(0, "m1", quiet(1, "m1")),
                send(0, "m2", quiet(2, "m2")),
                send(0, "m3", quiet(3, "m3")),
                do(10, "ack", [quiet(4, "m2", b=4)], a={"e": OWN, "n": 3, "x": [[2, 2]]}),
                do(20, "ack", [], a={"e": OWN, "n": 4, "x": [[2, 2]]}),
                send(30, "m4", quiet(5, "m4", 30, b=5)),
            ],
            mail=100_000,
        ),
        sender_case(
            "x: a phone tells its owner",
            [
                send(0, "m1", quiet(1, "m1")),
                send(0, "m2", quiet(2, "m2")),
                send(0, "m3", quiet(3, "m3")),
                do(10, "ack", [], a={"e": OWN, "n": 3, "x": [[1, 2]]}, told=["m1", "m2"]),
                send(30, "m4", quiet(4, "m4", 30, b=4)),
            ],
            role="phone",
            mail=100_000,
        ),
        sender_case(
            "a phone: questions wait at the relay while the agent is away",
            [
                absent(0),
                send(10, "m1", quiet(1, "m1", 10)),
                send(20, "m2"),
                kept(30, "m1", quiet(2, "m2", 20)),
                kept(40, "m2"),
                do(50, "agreed"),
                taken(60, 2, r=True),
                send(70, "m3", quiet(3, "m3", 70, b=3)),
            ],
            role="phone",
            mail=100_000,
        ),
    ]


# ---- The agreement ----


def agreement_case(name, steps, role):
    return {"name": name, "role": role, "steps": steps}


def at(time, what, *outs, **more):
    return {"at": time, "do": what} | more | {"out": list(outs)}


FIRST = {"ack": {"a": {"e": "", "n": 0}, "r": True}}
BARE = {"ack": {"a": {"e": "", "n": 0}}}


def agreement_cases():
    """What leaves, beside the messages of the handshake; the keys are those of the newest agreement."""
    nothing = {"a": {"e": "", "n": 0}, "r": True}
    of_peer = {"ack": nothing}
    return [
        agreement_case(
            "an ack with r first, and again after 2 s, 4 s, 8 s, 16 s, 30 s, 30 s, until the peer's has come",
            [
                at(0, "connected"),
                at(10, "send", id="m1"),
                at(100, "agreed", FIRST),
                at(2099, "time"),
                at(2100, "time", FIRST),
                at(6099, "time"),
                at(6100, "time", FIRST),
                at(14_100, "time", FIRST),
                at(30_100, "time", FIRST),
                at(60_099, "time"),
                at(60_100, "time", FIRST),
                at(90_100, "time", FIRST),
                at(90_200, "ack", {"record": out(1, "m1")}, **of_peer),
                at(200_000, "time"),
            ],
            role,
        )
        for role in ("phone", "agent")
    ] + [
        agreement_case(
            "a further ack with r is answered by one without",
            [
                at(0, "connected"),
                at(100, "agreed", FIRST),
                at(150, "ack", **of_peer),
                at(2200, "ack", BARE, **of_peer),
                at(2300, "ack", ack={"a": {"e": "", "n": 0}}),
                at(60_000, "time"),
            ],
            "agent",
        ),
        agreement_case(
            "new keys are a new agreement",
            [
                at(0, "connected"),
                at(100, "agreed", FIRST),
                at(150, "ack", **of_peer),
                at(160, "send", {"record": out(1, "m1")}, id="m1"),
                at(200, "agreed", FIRST),
                at(210, "send", id="m2"),
                at(2199, "time"),
                at(2200, "time", FIRST),
                at(2300, "ack", {"record": out(1, "m1")}, {"record": out(2, "m2")}, **of_peer),
            ],
            "agent",
        ),
        agreement_case(
            "the phone comes anew: nothing numbered leaves until its first ack",
            [
                at(0, "connected"),
                at(100, "agreed", FIRST),
                at(150, "ack", **of_peer),
                at(160, "send", {"record": out(1, "m1")}, id="m1"),
                at(200, "online"),
                at(210, "send", id="m2"),
                at(5000, "time"),
                at(5000, "agreed", FIRST),
                at(5010, "ack", {"record": out(1, "m1")}, {"record": out(2, "m2")}, **of_peer),
            ],
            "agent",
        ),
        agreement_case(
            "a break while it waits: nothing leaves until keys are agreed again",
            [
                at(0, "connected"),
                at(100, "agreed", FIRST),
                at(200, "lost"),
                at(2100, "time"),
                at(5000, "connected"),
                at(9000, "time"),
                at(9500, "agreed", FIRST),
                at(11_500, "time", FIRST),
            ],
            "phone",
        ),
    ]
