"""What the Python package computes without a relay: addresses, state files, codes, histories, words for an error."""

import json
import os
import pathlib
import stat
import tomllib

import pytest
import segno

from coralmux import Image, Link, pairing, state
from coralmux.history import ALL_BYTES_MAX, BYTES_MAX, CHATS_MAX, TURNS_MAX, TURNS_WITH_IMAGES, History
from coralmux.mask import masked, words_of
from coralmux.relay_url import RelayUrl, RelayUrlError
from coralmux.state import Lock, State, StateError

RELAY = RelayUrl.parse("wss://relay.example.com")
SECRET = bytes(range(32))
ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("colours", [False, True])
def test_a_drawing_shows_the_codes_modules(colours):
    text = "openclaw://pair?token=x"
    modules = segno.make(text, error="l", micro=False, boost_error=False).matrix
    code, rows = [list(map(bool, row)) for row in modules], []
    for line in pairing.drawing(text, colours).splitlines():
        line = line.removeprefix("    ").removeprefix("\x1b[30;107m").removesuffix("\x1b[0m")
        for half in (1, 2):
            rows.append([bool(" \u2580\u2584\u2588".index(block) & half) == colours for block in line])
    quiet = pairing.QUIET_ZONE
    assert [row[quiet : quiet + len(code)] for row in rows[quiet : quiet + len(code)]] == code
    assert not any(any(row) for row in rows[:quiet]) and not any(row[0] for row in rows[:-1])


def test_a_text_that_is_too_long_has_no_code():
    assert pairing.drawing("x" * 2953, True) and pairing.drawing("x" * 2954, True) is None


def test_links_are_shown_with_the_codes_that_were_asked_for():
    link = Link("t", "ws://127.0.0.1:8080/ws", SECRET)
    count = lambda codes: pairing.instructions(link, codes).count("\n\n    \u2588")  # noqa: E731
    assert [count(codes) for codes in ("both", "app", "browser", "none")] == [2, 1, 1, 0]
    text = pairing.instructions(Link("t", "ws://127.0.0.1:8080/other", SECRET), "browser")
    assert "browser" not in text and "\u2588" in text, "no page there: the app's code takes its place"


@pytest.mark.parametrize(
    ("typed", "meant", "http"),
    [
        ("wss://relay.example.com", "wss://relay.example.com/ws", "https://relay.example.com"),
        ("https://Relay.Example.com/", "wss://relay.example.com/ws", "https://relay.example.com"),
        ("ws://127.0.0.1:8080/ws", "ws://127.0.0.1:8080/ws", "http://127.0.0.1:8080"),
        ("ws://[::1]:8080", "ws://[::1]:8080/ws", "http://[::1]:8080"),
        ("wss://relay.example.com:443/other", "wss://relay.example.com/other", "https://relay.example.com"),
        ("wss://example.com/relay/ws", "wss://example.com/relay/ws", "https://example.com/relay"),
        (" http://relay:80 ", "ws://relay/ws", "http://relay"),
    ],
)
def test_an_address_is_read_as_coralmux_agent_reads_it(typed, meant, http):
    relay = RelayUrl.parse(typed)
    assert (str(relay), relay.http) == (meant, http)


@pytest.mark.parametrize(
    "text",
    ["relay", "ftp://r", "wss://", "wss://:80", "wss://r:", "wss://r:0", "wss://r:65536", "wss://r:x", "wss://a@b",
     "wss://r/?a", "wss://r/#a", "wss://r/a b", "wss://r/\u00e4", "wss://[::z]", "wss://[::1", "wss://" + "r" * 3000],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RelayUrlError):
        RelayUrl.parse(text)


def test_what_others_can_read_on_the_way_is_told():
    own = ["wss://relay.example.com", "ws://127.0.0.1", "ws://localhost", "ws://relay", "ws://192.168.1.2",
           "ws://100.100.1.1", "ws://[fd00::1]", "ws://nas.local", "ws://[::ffff:10.0.0.1]"]  # fmt: skip
    others = ["ws://relay.example.com", "ws://8.8.8.8", "ws://[2a00::1]", "ws://100.128.0.1", "ws://localhost.example"]
    assert [RelayUrl.parse(relay).is_exposed for relay in own + others] == [False] * len(own) + [True] * len(others)


def test_a_state_reads_back_with_what_others_keep_in_it(tmp_path):
    path = tmp_path / "new" / "state.json"
    assert state.read(path) == (None, None)
    for _ in range(2):
        state.write(path, RELAY, State("oc_pair_00", SECRET, {"devices": [1], "relay": "old"}))
    kept, warning = state.read(path)
    assert (kept.token, kept.secret, warning) == ("oc_pair_00", SECRET, None)
    assert kept.more == {"devices": [1], "relay": "wss://relay.example.com/ws"}
    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "AAEC" not in repr(kept) and "oc_pair" not in repr(kept), "it may get into a log"


def test_a_state_that_was_written_outlasts_a_power_cut(tmp_path, monkeypatch):
    """First the file is on the disk, then its name, which is the folder's."""
    synced, path = [], tmp_path / "state.json"
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((stat.S_ISDIR(os.fstat(fd).st_mode), path.exists())))
    state.replace(path, "{}")
    assert synced == [(False, False), (True, True)]


def test_only_its_owner_may_read_a_state(tmp_path):
    path = tmp_path / "state.json"
    state.write(path, RELAY, State("oc_pair_00", SECRET))
    for mode in (0o640, 0o664, 0o644):
        path.chmod(mode)
        assert f"mode {mode:o}" in state.read(path)[1]
        assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    with pytest.raises(StateError, match="chmod 600"):
        state.read(path)


def test_what_is_no_state_is_told(tmp_path):
    path = tmp_path / "state.json"
    for text in ["", "{}", "[]", '{"relay":"","token":"t","secret":"short"}', '{"token":7,"secret":7}', "x" * 70_000]:
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(StateError, match="is not a state file"):
            state.read(path)
    with pytest.raises(StateError, match="is not a state file"):
        state.read(tmp_path)


def test_each_relay_has_a_file_of_its_own():
    env = {"HOME": "/home/me"}
    paths = {
        state.default_path(RelayUrl.parse(url), env=env) for url in ("wss://r", "wss://r/x", "ws://r", "wss://[::1]")
    }
    assert len(paths) == 4
    assert all(path.parent == pathlib.Path("/home/me/.local/state/coralmux-agent") for path in paths)
    with pytest.raises(StateError, match="name a file"):
        state.default_path(RELAY, env={})


def test_a_lock_ends_with_its_holder(tmp_path):
    path = tmp_path / "state.json"
    with Lock(path), pytest.raises(StateError, match="another program uses"), Lock(path):
        pass
    with Lock(path):
        pass
    assert (tmp_path / "state.json.lock").stat().st_mode & 0o777 == 0o600


def test_a_history_is_bounded():
    history = History()
    for number in range(TURNS_MAX + 10):
        history.push("a", "user", f"{number}", 1, (Image("image/png", b"x" * 10),))
    turns = history.context("a", 500)
    assert (len(turns), turns[0].text) == (TURNS_MAX, "10")
    assert sum(bool(turn.images) for turn in turns) == TURNS_WITH_IMAGES
    assert history.as_json("a", 1, 10_000) == ([{"role": "user", "text": "209", "ts": 1, "images": 1}], True)
    for _ in range(20):
        history.push("b", "user", "x" * (1 << 20), 1)
    assert len(history.context("b", 500)) == BYTES_MAX // (1 << 20) - 1
    for number in range(CHATS_MAX):
        history.push(str(number), "user", "x" * (2 << 20), 1)
    assert sum(map(len, history.chats)) and history._size() <= ALL_BYTES_MAX
    assert not history.context("a", 500) and history.context(str(CHATS_MAX - 1), 500)


def test_a_history_has_the_newest_turns_that_fit():
    history = History()
    for text in ("one", "\x01\x01", "three"):
        history.push("a", "user", text, 1)
    all_of_it = len(json.dumps(history.as_json("a", 3, 10_000)[0], separators=(",", ":"))) - 1
    assert [len(history.as_json("a", 3, size)[0]) for size in (all_of_it, all_of_it - 1, 10, 0)] == [3, 2, 0, 0]
    assert history.as_json("a", 3, 10_000)[1] is False and history.as_json("b", 3, 100) == ([], False)
    history.push("a", "assistant", "four", 2, finish="length", notice="cut")
    assert history.as_json("a", 1, 100)[0] == [
        {"role": "assistant", "text": "four", "ts": 2, "finish": "length", "notice": "cut"}
    ]
    assert [turn.text for turn in history.context("a", 1)] == [], "it begins with the person's"
    history.forget_question("a")
    assert len(history.context("a", 9)) == 4


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Incorrect API key provided: sk-proj-abcdefgh****WXYZ", "Incorrect API key provided: ***"),
        ("401 Bearer abcdefghijkl is unknown", "401 Bearer *** is unknown"),
        ("?api_key=abcdefghijkl&x=1", "?api_key=***&x=1"),
        ("{'token': 'abc123xyz'}", "{'token': '***'}"),
        ("postgres://me:hunter2@db/x", "postgres://***@db/x"),
        ("see openclaw://pair?token=oc_pair_1&k=x now", "see *** now"),
        ("[Errno 2] No such file: '/home/me/secret/notes.txt'", "[Errno 2] No such file: '...'"),
        ("C:\\Users\\me\\notes.txt is gone", "... is gone"),
        ("my own hunter2secret", "my own ***"),
        ("and/or 3/4 https://example.com/docs/errors of GPT-4", "and/or 3/4 https://example.com/docs/errors of GPT-4"),
        ("the task-list of the model Meta-Llama-3.1-70B", "the task-list of the model Meta-Llama-3.1-70B"),
        ("grüße an die \U0001f980", "grüße an die \U0001f980"),
    ],
)
def test_an_errors_words_have_neither_keys_nor_paths(said, shown):
    assert masked(said, {"MY_PASSWORD": "hunter2secret", "A_KEY": "x"}) == shown


def test_an_error_is_one_line_of_a_bounded_length():
    assert words_of(ValueError("one\n  two")) == "ValueError: one two"
    assert words_of(KeyError()) == "KeyError"
    assert len(words_of(ValueError("x" * 1000))) == 300
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("inner", [ValueError("the cause")])])
    assert words_of(group) == "ValueError: the cause"


def test_the_version_is_the_relays():
    read = lambda *path: tomllib.loads(ROOT.joinpath(*path).read_text())  # noqa: E731
    package = read("clients", "python", "pyproject.toml")["project"]
    assert package["version"] == read("Cargo.toml")["workspace"]["package"]["version"], "docs/RELEASING.md"
    assert (ROOT / "clients" / "python" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
