"""How agents and servers are set up behind coralmux-agent, for test_works_with_agent.py: with their own packages, and the fake
AI server as their model."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import time
from dataclasses import dataclass, field

from agents import Process
from environments import FOLDER, environment
from works_with import PROGRAMS

SERVER_TIMEOUT = 180  # seconds, for a server to be there, on a machine that does other things, too


@dataclass(frozen=True)
class Setup:
    """`flags` are coralmux-agent's. `shell` is a tool of the agent that runs a `command`. `server` is started first, and is
    ready when it listens on `port`."""

    flags: tuple
    shell: str = ""
    env: dict = field(default_factory=dict)
    server: tuple = ()
    port: int = 0


def install(framework):
    """Where its packages are, newest on the day of the first run; and the versions of those from npm."""
    if not framework.is_npm:
        return environment(framework.packages[0].split("[")[0], *framework.packages), None
    folder = FOLDER.with_name("npm") / "-".join(name.replace("/", "-") for name in framework.packages)
    modules = folder / "node_modules"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        # One after the other: a Node among them is the one that the next ones are installed with.
        for package in framework.packages:
            command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error", package]
            subprocess.run(command, cwd=folder, check=True, timeout=900, env=os.environ | path(modules))
        (folder / "ready").touch()
    names = [package.rpartition("@")[0] or package for package in framework.packages]
    return modules, {name: json.loads((modules / name / "package.json").read_text())["version"] for name in names}


def path(modules):
    return {"PATH": f"{modules}/.bin:{os.environ['PATH']}"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def served(setup, folder):
    """Runs the set-up's server, if it has one. OpenClaw's gives up if a thread of its own is not there within 5 s: then it is
    started again."""
    if not setup.server:
        yield
        return
    (folder / "server").mkdir()
    start = lambda: Process(folder / "server", list(setup.server), setup.env)  # noqa: E731
    server, deadline = start(), time.monotonic() + SERVER_TIMEOUT
    try:
        while True:
            assert time.monotonic() < deadline, server.output()[-4000:]
            if server.process.poll() is not None:
                server = start()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", setup.port), 1):
                break
            time.sleep(0.2)
        yield
    finally:
        server.kill()


def opencode(folder, modules, ai):
    models = {"fake-model": {"name": "Fake", "modalities": {"input": ["text", "image"], "output": ["text"]}}}
    options = {"baseURL": ai.url, "apiKey": "x"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "Fake", "options": options, "models": models}
    config = {"provider": {"fake": provider}, "model": "fake/fake-model", "permission": {"bash": "ask"}}
    (folder / "opencode.json").write_text(json.dumps(config | {"small_model": "fake/fake-model"}))
    env = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    return Setup(acp(f"{modules}/.bin/opencode acp", folder), "bash", env)


def qwen(folder, modules, ai):
    env = {"OPENAI_BASE_URL": ai.url, "OPENAI_API_KEY": "x", "OPENAI_MODEL": "fake-model"}
    flags = acp(f"{modules}/.bin/qwen --acp --auth-type openai", folder)
    return Setup((*flags, "--exec-env", "OPENAI_API_KEY"), "run_shell_command", env)


def codex(folder, modules, ai):
    config = f"""model = "fake-model"
model_provider = "fake"
approval_policy = "on-request"
[model_providers.fake]
name = "Fake"
base_url = "{ai.url}"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
"""
    (folder / ".codex").mkdir()
    (folder / ".codex" / "config.toml").write_text(config)
    flags = acp(f"{modules}/.bin/codex-acp", folder)
    return Setup((*flags, "--exec-env", "OPENAI_API_KEY"), "exec_command", {"OPENAI_API_KEY": "x"})


def acp(command, folder):
    return "--acp", command, "--acp-dir", str(folder)


def openclaw(folder, modules, ai):
    port, env = openclaw_gateway_home(folder, modules, ai)
    server = (f"{modules}/.bin/openclaw", "gateway", "run", "--port", str(port), "--bind", "loopback")
    return Setup(acp("openclaw acp", folder), "exec", env, server, port)


def openclaw_gateway(folder, modules, ai):
    at_acp = openclaw(folder, modules, ai)
    flags = ("--openai", f"http://127.0.0.1:{at_acp.port}/v1", "--model", "openclaw/default", "--stateful")
    return Setup(flags, "exec", at_acp.env | {"OPENAI_API_KEY": "gw-test-token"}, at_acp.server, at_acp.port)


def openclaw_gateway_home(folder, modules, ai):
    """Its configuration in the home directory; the gateway's port, and the environment."""
    port = free_port()
    model = {"id": "fake-model", "name": "Fake", "reasoning": False, "input": ["text", "image"], "maxTokens": 8192}
    model |= {"cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}, "contextWindow": 120000}
    provider = {"baseUrl": ai.url, "apiKey": "x", "api": "openai-completions", "models": [model]}
    auth = {"mode": "token", "token": "gw-test-token"}
    endpoints = {"chatCompletions": {"enabled": True}}
    (folder / "work").mkdir()
    config = {
        "gateway": {"mode": "local", "port": port, "bind": "loopback", "auth": auth, "http": {"endpoints": endpoints}},
        "agents": {"defaults": {"model": {"primary": "fake/fake-model"}, "workspace": str(folder / "work")}},
        "models": {"mode": "replace", "providers": {"fake": provider}},
        "tools": {"exec": {"mode": "ask"}},
    }
    (folder / ".openclaw").mkdir()
    (folder / ".openclaw" / "openclaw.json").write_text(json.dumps(config))
    return port, path(modules) | {"HOME": str(folder)}


def forge(folder, python, ai):
    port = free_port()
    env = {"OPENAI_API_BASE": ai.url, "OPENAI_BASE_URL": ai.url, "OPENAI_API_KEY": "x", "HOME": str(folder)}
    command = f"cd {shlex.quote(str(folder))} && exec {python} {PROGRAMS / 'forge_agent.py'} {port}"
    return Setup(("--agent-protocol", f"http://127.0.0.1:{port}"), "", env, ("/bin/sh", "-c", command), port)


def ag_ui(folder, python, ai):
    port = free_port()
    server = (python, str(PROGRAMS / "ag_ui_server.py"), str(port))
    return Setup(("--ag-ui", f"http://127.0.0.1:{port}/"), "shell", {"FAKE_AI": ai.url}, server, port)


SETUPS = {
    "opencode": opencode,
    "qwen": qwen,
    "codex": codex,
    "openclaw": openclaw,
    "openclaw-gateway": openclaw_gateway,
    "forge_agent.py": forge,
    "ag_ui_server.py": ag_ui,
}
