"""Plaintexts of records and acks for resume.json: those that a client has to read, and those that it has to refuse."""

import base64
import hashlib
import json

LIMIT = 2**53


def boot(name):
    """A boot that anybody can make again."""
    digest = hashlib.sha256(b"coralmux test vector: boot " + name.encode()).digest()
    return base64.urlsafe_b64encode(digest[:8]).decode().rstrip("=")


A, B, C, D, E, OWN = (boot(name) for name in ("A", "B", "C", "D", "E", "own"))


GOOD = {"e": A, "n": 45, "f": 42, "b": 41, "a": {"e": B, "n": 17}, "p": {"full_text": "..."}}


def text(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def records_read():
    """Records that have to be read, and what is in them; `f` is there where it is missing, too."""
    last = LIMIT - 1
    nothing = {"e": "", "n": 0}
    texts = [
        text(GOOD),
        text(GOOD) + " " * 40,
        text(dict(reversed(GOOD.items()))),
        json.dumps(GOOD, indent=1),
        text(without("f")),
        text(without("a")),
        text(without("f", "a")),
        text(GOOD | {"a": nothing}),
        text(GOOD | {"a": {"e": B, "n": 0}}),
        text(GOOD | {"a": {"e": B, "n": last}}),
        text(GOOD | {"o": {"e": C, "n": 1}}),
        text(GOOD | {"o": {"e": C, "n": last}}),
        text(GOOD | {"n": last, "f": last, "b": last}),
        text(GOOD | {"n": 1, "f": 1, "b": 1}),
        text(GOOD | {"n": last, "f": 1, "b": 1}),
        text(GOOD | {"x": [[7, 7]], "t": 1770580800000, "r": 7}),
        text(GOOD | {"t": 0}),
        text(GOOD | {"t": last}),
        text(GOOD | {"a": {"e": B, "n": 17, "y": 1}}),
        text(GOOD | {"a": {"e": B, "n": 17, "x": []}}),
        text(GOOD | {"a": {"e": B, "n": 17, "x": [[1, 1], [2, 6], [17, 17]]}}),
        text(GOOD | {"p": {}}),
        text(GOOD | {"p": []}),
        text(GOOD | {"p": "h\u00e4llo \u6f22\u5b57 \U0001f40b"}),
        text(GOOD | {"p": {"e": 1, "n": "x", "p": {"p": None}}}),
    ]
    known = ("e", "n", "f", "b", "a", "o", "t", "p")
    read = []
    for plaintext in texts:
        values = json.loads(plaintext)
        values = {"f": values["n"]} | {name: values[name] for name in known if name in values}
        if "a" in values:
            values["a"] = position_read(values["a"])
        read.append({"plaintext": plaintext, "record": values})
    return read


def position_read(a):
    """What is in an acknowledgement; no `x` if it has no range."""
    return {name: a[name] for name in ("e", "n", "x") if a.get(name) not in (None, [])}


def wrong_lost():
    """Of `x`, in an acknowledgement up to 45."""
    return [
        ("x is null", None),
        ("x is a number", 7),
        ("x is an object", {}),
        ("x has 17 ranges", [[2 * n, 2 * n] for n in range(1, 18)]),
        ("a range is a number", [7]),
        ("a range has one number", [[7]]),
        ("a range has three numbers", [[7, 8, 9]]),
        ("a range is backward", [[8, 7]]),
        ("a range begins at 0", [[0, 7]]),
        ("a range ends above n", [[7, 46]]),
        ("a range has a string", [["7", 8]]),
        ("a range has a fraction", [[7, 7.5]]),
        ("ranges overlap", [[7, 9], [9, 10]]),
        ("ranges are not in order", [[9, 10], [7, 7]]),
    ]


def wrong_boots():
    return [
        ("has 10 characters", A[:-1]),
        ("has 12 characters", A + "A"),
        ("is padded", A[:-1] + "="),
        ("has a character of standard base64", "+" + A[1:]),
        ("has another character", "\u00e4" + A[1:]),
        ("is a number", 7),
        ("is null", None),
        ("is a list", [A]),
    ]


def wrong_numbers(lowest):
    return [
        (f"is {lowest - 1}", lowest - 1),
        ("is negative", -45),
        ("is 2^53", LIMIT),
        ("is 2^64", 2**64),
        ("is 10^30", 10**30),
        ("is a fraction", 45.5),
        ("is a string", "45"),
        ("is true", True),
        ("is null", None),
        ("is a list", [45]),
    ]


def wrong_positions(name, empty_allowed):
    """Of `a` and `o`."""
    lowest = 0 if empty_allowed else 1
    cases = [(f"{name} {why}", value) for why, value in (("is null", None), ("is a list", [B, 1]), ("is a string", B))]
    cases += [(f"{name}.e is missing", {"n": 1}), (f"{name}.n is missing", {"e": B}), (f"{name} is empty", {})]
    cases += [(f"{name}.e {why}", {"e": value, "n": 1}) for why, value in wrong_boots()]
    cases += [(f"{name}.n {why}", {"e": B, "n": value}) for why, value in wrong_numbers(lowest)]
    return [*cases, (f"{name}.e is empty", {"e": "", "n": 1})]


def not_objects():
    return [("empty", ""), ("blanks", "   "), ("cut short", text(GOOD)[:-1]), ("two of them", text(GOOD) * 2)] + [
        (f"is {value}", value) for value in ("null", "true", "7", '"x"', "[]", f"[{text(GOOD)}]", "{}")
    ]


def records_refused():
    cases = not_objects()
    cases += [(f"{name} is missing", text(without(name))) for name in ("e", "n", "b", "p")]
    changes = [(f"e {why}", {"e": value}) for why, value in [*wrong_boots(), ("is empty", "")]]
    for name in ("n", "f", "b"):
        changes += [(f"{name} {why}", {name: value}) for why, value in wrong_numbers(1)]
    changes += [
        ("f is above n", {"f": 46}),
        ("b is above f", {"b": 43}),
        ("b is above n, without f", {"f": ..., "b": 46}),
    ]
    changes += [(why, {"a": value}) for why, value in wrong_positions("a", True)]
    changes += [(why, {"o": value}) for why, value in wrong_positions("o", False)]
    changes += [(f"a: {why}", {"a": {"e": B, "n": 45, "x": x}}) for why, x in wrong_lost()]
    changes += [("a of nothing has x", {"a": {"e": "", "n": 0, "x": [[1, 1]]}})]
    changes += [(f"t {why}", {"t": value}) for why, value in wrong_numbers(0)]
    changes += [("o is empty and 0", {"o": {"e": "", "n": 0}}), ("o names its own boot", {"o": {"e": A, "n": 1}})]
    for why, change in changes:
        values = {name: value for name, value in (GOOD | change).items() if value is not ...}
        cases.append((why, text(values)))
    return [{"why": why, "plaintext": plaintext} for why, plaintext in cases]


def acks_read():
    nothing = {"e": "", "n": 0}
    values = [
        {"a": {"e": A, "n": 17}},
        {"a": {"e": A, "n": 17}, "r": True},
        {"r": True, "a": {"n": LIMIT - 1, "e": A}},
        {"a": {"e": A, "n": 0}},
        {"a": nothing},
        {"a": nothing, "r": True},
        {"a": {"e": A, "n": 17, "y": 1}, "n": 7, "z": None},
        {"a": {"e": A, "n": 17, "x": [[7, 7]]}, "r": True},
        {"a": {"e": A, "n": 17, "x": []}},
        {"a": {"e": A, "n": LIMIT - 1, "x": [[2 * n, 2 * n] for n in range(1, 16)] + [[32, LIMIT - 1]]}},
    ]
    read = [(text(value), value) for value in values] + [(text(values[1]) + " " * 30, values[1])]
    return [
        {
            "plaintext": plaintext,
            "a": position_read(value["a"]),
            "r": value.get("r", False),
        }
        for plaintext, value in read
    ]


def acks_refused():
    cases = [(why, plaintext) for why, plaintext in not_objects() if why != "two of them"]
    cases += [("only r", '{"r":true}'), ("two of them", '{"a":{"e":"","n":0}}{"a":{"e":"","n":0}}')]
    cases += [(why, text({"a": value})) for why, value in wrong_positions("a", True)]
    cases += [(why, text({"a": {"e": A, "n": 45, "x": x}})) for why, x in wrong_lost()]
    for why, value in [("is 1", 1), ("is a string", "true"), ("is a list", [True]), ("is an object", {})]:
        cases.append((f"r {why}", text({"a": {"e": A, "n": 17}, "r": value})))
    return [{"why": why, "plaintext": plaintext} for why, plaintext in cases]
