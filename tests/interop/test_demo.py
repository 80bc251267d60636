"""`coralmux-relay demo`; the phone is the Python client."""

import re
import signal
import subprocess
import time
import urllib.request

from agents import Phone, Process, program
from relay import binary
from terminal import AtTerminal


async def test_the_demo_is_a_relay_an_agent_and_a_link_and_leaves_nothing_behind(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    demo = AtTerminal(tmp_path, [binary(), "demo", "--addr", "127.0.0.1:0"], {"TMPDIR": str(temporary)})
    try:
        link = demo.link("http://127.0.0.1")
        assert "█" in demo.output()
        [folder] = temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        async with Phone(link) as phone:
            await phone.ask("hello")
            assert (await phone.answer())[0] == "You said: hello"
        page = link.relay.replace("ws://", "http://").removesuffix("/ws")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(page, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/html")
        demo.stop(signal.SIGINT)
    finally:
        demo.kill()
    assert not list(temporary.iterdir())


async def test_a_demo_that_keeps_its_data_comes_back_with_the_same_token_and_a_link_for_another_device(tmp_path):
    links = []
    for _ in range(2):
        command = [binary(), "demo", "--addr", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--", "--shards", "1"]
        demo = AtTerminal(tmp_path, command)
        try:
            links.append(demo.link())
            async with Phone(links[-1]) as phone:
                await phone.ask("hello")
                assert (await phone.answer())[0] == "You said: hello"
            demo.stop()
        finally:
            demo.kill()
    assert (links[0].token, links[0].agent) == (links[1].token, links[1].agent)
    assert links[0].secret != links[1].secret, "each is worth one device"


def test_the_link_is_shown_at_a_terminal_only(tmp_path):
    demo = Process(tmp_path, [binary(), "demo", "--addr", "127.0.0.1:0", "--data", str(tmp_path / "data")])
    try:
        deadline = time.monotonic() + 20
        while "on a terminal only" not in demo.output():
            assert demo.process.poll() is None and time.monotonic() < deadline, demo.output()
            time.sleep(0.02)
        demo.stop()
    finally:
        demo.kill()
    said = demo.output()
    command = re.search(r"^ +coralmux-agent (link .+)$", said, re.MULTILINE)[1].split()
    with_link = subprocess.run([program("coralmux-agent"), *command], capture_output=True, text=True, check=True).stdout
    kept = (tmp_path / "data/agent.json").read_text()
    token = kept[kept.index("oc_pair_"):][:40]
    key = (tmp_path / "data/relay.db.admin-key").read_text().strip()
    assert token in with_link
    assert token not in said and "token=" not in said and "█" not in said and key not in said
