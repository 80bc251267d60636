"""How coralmux-agent reaches relay and AI server, what it reports if it cannot, and where it shows its pairing link."""

import asyncio
import subprocess

import pytest

from agents import DONE, Agent, AiServer, Phone, Process, event, head, program
from proxy import NAMES, Proxy
from relay import free_port
from terminal import AtTerminal

TOKEN = "oc_pair_" + "0" * 32
EMPTY = {name: "" for name in (*NAMES, "NO_PROXY", "no_proxy")}


async def said(agent, *words, seconds=20):
    """Waits until all of it was said."""
    async with asyncio.timeout(seconds):
        while not all(word in agent.output() for word in words):
            assert agent.process.poll() is None, agent.output()
            await asyncio.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    """Starts an agent of another relay than the usual one."""
    started = []

    def start(relay, *flags, env=None):
        folder = tmp_path / f"agent-{len(started)}"
        folder.mkdir()
        started.append(Agent(folder, relay, *flags, env=EMPTY | (env or {})))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


async def test_relay_and_ai_server_are_reached_through_the_environments_proxy(relay, start):
    async def answer(_, write):
        await write(head() + event("far away", finish_reason="stop") + DONE)

    async with AiServer(answer) as server:
        to_relay, to_ai = Proxy(relay.port), Proxy(int(server.url.split(":")[2].split("/")[0]))
        # One of them for names that the other is not for.
        env = to_relay.environment("HTTP_PROXY", "http_proxy") | {"NO_PROXY": "ai.example"}
        agent = start("ws://relay.example", "--echo", env=env)
        await said(agent, "Connected", "warning: ws://relay.example/ws has no TLS")
        assert [one.split("\r\n")[0] for one in to_relay.heads] == ["CONNECT relay.example:80 HTTP/1.1"] * 2
        assert all("authorization: basic dxnlcjp3b3jk" in one.lower() for one in to_relay.heads), "user:word"
        env = to_ai.environment("ALL_PROXY", "all_proxy")
        agent = start(f"ws://127.0.0.1:{relay.port}", "--openai", "http://ai.example/v1", "--model", "m", env=env)
        async with Phone(agent.link()) as phone:
            await phone.ask("hi")
            assert (await phone.answer())[0] == "far away"
        assert [one.split("\r\n")[0] for one in to_ai.heads] == ["CONNECT ai.example:80 HTTP/1.1"], "and none for the relay"


async def test_this_machine_is_reached_without_a_proxy(relay, start):
    async def answer(_, write):
        await write(head() + event("near", finish_reason="stop") + DONE)

    async with AiServer(answer) as server:
        proxy = Proxy(1)
        agent = start(f"ws://localhost:{relay.port}", "--openai", server.url, "--model", "m", env=proxy.environment())
        async with Phone(agent.link()) as phone:
            await phone.ask("hi")
            assert (await phone.answer())[0] == "near"
        assert proxy.heads == [] and "warning" not in agent.output()


async def test_no_proxy_is_obeyed(relay, start):
    proxy = Proxy(relay.port)
    env = proxy.environment() | {"NO_PROXY": "other.example, .invalid"}
    agent = start("ws://relay.invalid", "--echo", "--token", TOKEN, env=env)
    await said(agent, "relay.invalid cannot be looked up")
    assert proxy.heads == []


async def test_a_proxy_that_refuses_or_cannot_be_used_is_told(tmp_path, start):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://me:secretword@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    agent = start("wss://relay.example", "--echo", "--token", TOKEN, env={"HTTPS_PROXY": url})
    await said(agent, "the proxy http://127.0.0.1:", "of HTTPS_PROXY", "relay.example:443", "407 Proxy Authentication Required")
    assert "secretword" not in agent.output()
    server.close()
    agent = start("wss://relay.example", "--echo", "--token", TOKEN, env={"ALL_PROXY": "socks5://127.0.0.1:1"})
    assert agent.process.wait(20) == 1 and "socks5://127.0.0.1:1" in agent.output(), agent.output()


@pytest.mark.parametrize("value", ["garbage://me:secretword@x", "http://[::1"])
@pytest.mark.parametrize("token", [("--token", TOKEN), ()], ids=["token", "register"])
async def test_a_proxy_that_cannot_be_read_is_told_and_not_gone_around(start, value, token):
    agent = start("wss://relay.example", "--echo", *token, env={"HTTPS_PROXY": value})
    assert agent.process.wait(20) == 1, agent.output()
    assert "HTTPS_PROXY is " in agent.output() and "http://HOST:PORT" in agent.output()
    assert "secretword" not in agent.output()


@pytest.mark.parametrize("token", [("--token", TOKEN), ()], ids=["token", "register"])
async def test_a_proxy_that_does_not_answer_is_named(start, token):
    port = free_port()
    agent = start("wss://relay.example", "--echo", *token, env={"HTTPS_PROXY": f"http://me:secretword@127.0.0.1:{port}"})
    await said(agent, f"the proxy http://127.0.0.1:{port} of HTTPS_PROXY")
    assert "secretword" not in agent.output()


ANSWERS = [
    ("404 Not Found", [], "", "404", "check the path"),
    ("200 OK", ["Content-Type: text/html"], "<html>Hello</html>", "200", "another page"),
    ("302 Found", ["Location: https://login.example/?next=x"], "", "302", "leads to https://login.example/?next=x"),
    ("426 Upgrade Required", [], "", "426", "Upgrade"),
    ("403 Forbidden", [], "", "403", "in front of the relay"),
    ("502 Bad Gateway", [], "", "502", "does not answer"),
]


@pytest.mark.parametrize(("status", "headers", "body", "code", "words"), ANSWERS)
async def test_what_is_no_relay_is_said_with_address_and_status(start, status, headers, body, code, words):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix/ws"
    agent = start(url, "--echo", "--token", TOKEN)
    await said(agent, f"{url} answered {code}", words, "Trying again in")
    api = url.replace("ws://", "http://").removesuffix("/ws") + "/api/v1/register"
    if code != "403":  # which says that the relay registers nobody
        agent = start(url, "--echo")
        await said(agent, f"{api} answered {code}", words, "trying again in")
    server.close()


async def test_the_link_is_shown_on_a_terminal_and_on_request(tmp_path, relay, start):
    url = f"ws://127.0.0.1:{relay.port}"
    link_of = [program("coralmux-agent"), "link", "--relay", url]
    missing = subprocess.run([*link_of, "--state", tmp_path / "none"], capture_output=True, text=True)
    assert missing.returncode == 1 and "no pairing is kept" in missing.stderr, missing
    state = ["--state", str(tmp_path / "state.json")]
    agent = start(url, "--echo", *state)
    await said(agent, "are kept in", f"coralmux-agent link --relay {url}/ws --state {state[1]}")
    shown = subprocess.run([*link_of, *state], capture_output=True, text=True, check=True).stdout
    assert "\u2588" in shown and "openclaw://pair?token=" in shown and "/#token=" in shown
    assert "token=" not in agent.output() and "oc_pair_" not in agent.output()
    agent.stop()
    seen = AtTerminal(tmp_path, [program("coralmux-agent"), "--relay", url, "--echo", *state])
    try:
        assert seen.link().token in shown
    finally:
        seen.kill()


async def test_empty_variables_are_as_good_as_none(relay, tmp_path):
    env = EMPTY | {"CORALMUX_AGENT_TOKEN": "", "CORALMUX_AGENT_RELAY": "", "OPENAI_API_KEY": "", "XDG_STATE_HOME": ""}
    command = [program("coralmux-agent"), "--relay", f"ws://127.0.0.1:{relay.port}", "--echo"]
    agent = Process(tmp_path, command, env | {"HOME": str(tmp_path)})
    try:
        await said(agent, "Connected")
        assert (tmp_path / ".local/state/coralmux-agent").is_dir()
    finally:
        agent.kill()
    nothing = subprocess.run([program("coralmux-agent"), "--echo"], env=env, capture_output=True, text=True)
    assert nothing.returncode == 2 and "--relay URL (or CORALMUX_AGENT_RELAY) is missing" in nothing.stderr, nothing


async def test_an_answer_that_is_too_large_for_the_relay_ends_with_an_error(start_relay, start):
    agent = start(start_relay("--max-message", "16KiB").url, "--exec", "head -c 40000 /dev/zero | tr '\\0' x")
    async with Phone(agent.link()) as phone:
        await phone.ask("hi", chat_id="1")
        _, end = await phone.answer()
    assert end.type == "chat.error" and end.payload["chat_id"] == "1" and "ref" in end.payload, end
    assert end.payload["message"] == "the relay does not forward an answer of this size"
    assert "the phone was away for too long." not in agent.output()
