"""Which frameworks are tried, with what, and the table of what passed (docs/WORKS-WITH.md)."""

import datetime
import json
import os
import pathlib
import subprocess
from dataclasses import dataclass

import phones
import relay as relays
from environments import FOLDER

PROGRAMS = pathlib.Path(__file__).with_name("frameworks")
RESULTS = FOLDER / "works-with"
DOCUMENT = relays.ROOT / "docs" / "WORKS-WITH.md"
# In the order of the table. `error`: what the AI server's failure becomes; the others are its columns.
CHECKS = ("text", "image", "tool", "memory", "question", "cancel", "error")


@dataclass(frozen=True)
class Framework:
    """`program` is in the folder `frameworks`; `packages` are installed, and the table has their versions. `lacks`:
    what it cannot do, and why."""

    name: str
    adapter: str
    program: str
    packages: tuple
    lacks: dict
    is_quick: bool = False  # it is tried in `make test`, too
    is_npm: bool = False


OPENCLAW = ("node@24", "openclaw@latest")
LANGCHAIN = ("langchain", "langgraph", "langchain-openai")
FRAMEWORKS = [
    Framework(
        "LangChain Runnable",
        "coralmux.langchain",
        "langchain_runnable.py",
        LANGCHAIN,
        {"tool": "a chain that calls tools is a graph", "question": "a Runnable has no interrupt"},
        is_quick=True,
    ),
    Framework("LangGraph, `create_agent`", "coralmux.langchain", "langgraph_agent.py", LANGCHAIN, {}, is_quick=True),
    Framework(
        "LangChain, human in the loop",
        "coralmux.langchain",
        "langgraph_approval.py",
        LANGCHAIN,
        {"tool": "as above"},
    ),
    Framework(
        "LangGraph server, `RemoteGraph`",
        "coralmux.langchain",
        "langgraph_remote.py",
        ("langgraph", "langgraph-cli[inmem]", "langchain", "langchain-openai"),
        {},
    ),
    Framework(
        "CrewAI",
        "coralmux.crewai",
        "crew.py",
        ("crewai",),
        {
            "image": "the adapter passes on none",
        },
    ),
    Framework(
        "AutoGen AgentChat",
        "coralmux.autogen",
        "autogen_agent.py",
        ("autogen-agentchat", "autogen-ext[openai]"),
        {},
    ),
    Framework("AG2", "coralmux.ag2", "ag2_agent.py", ("ag2[openai]",), {}),
    Framework(
        "Microsoft Agent Framework",
        "coralmux.agent_framework",
        "ms_agent.py",
        ("agent-framework-core", "agent-framework-openai"),
        {},
    ),
    Framework("OpenAI Agents SDK", "coralmux.openai_agents", "openai_agent.py", ("openai-agents",), {}),
    Framework(
        "Pydantic AI",
        "coralmux.pydantic_ai",
        "pydantic_agent.py",
        ("pydantic-ai-slim[openai]",),
        {},
    ),
    Framework(
        "LlamaIndex",
        "coralmux.llamaindex",
        "llamaindex_agent.py",
        ("llama-index-core", "llama-index-llms-openai-like"),
        {},
    ),
]
# See test_works_with_agent.py.
NOT_SHOWN = "its API shows nothing of what the agent does"
BEHIND_THE_AGENT = [
    Framework(
        "OpenClaw",
        "coralmux-agent --acp 'openclaw acp'",
        "openclaw",
        OPENCLAW,
        {},
        is_npm=True,
    ),
    Framework(
        "OpenClaw's gateway",
        "coralmux-agent --openai URL --stateful",
        "openclaw-gateway",
        OPENCLAW,
        {"tool": NOT_SHOWN, "question": NOT_SHOWN},
        is_npm=True,
    ),
    Framework(
        "opencode",
        "coralmux-agent --acp 'opencode acp'",
        "opencode",
        ("opencode-ai",),
        {"error": "it asks again for longer than is waited here"},
        is_npm=True,
    ),
    Framework(
        "Qwen Code",
        "coralmux-agent --acp 'qwen --acp'",
        "qwen",
        ("@qwen-code/qwen-code",),
        {"image": "its model is set up as one that takes text alone"},
        is_npm=True,
    ),
    Framework(
        "Codex",
        "coralmux-agent --acp codex-acp",
        "codex",
        ("@zed-industries/codex-acp",),
        {},
        is_npm=True,
    ),
    Framework(
        "AutoGPT Forge",
        "coralmux-agent --agent-protocol URL",
        "forge_agent.py",
        ("autogpt-forge",),
        {
            "image": "the Agent Protocol has none",
            "tool": "the Agent Protocol tells of steps alone",
            "memory": "each message is a task of its own",
            "question": "the Agent Protocol has no way to ask",
            "cancel": "its server goes on with a step that nobody waits for",
        },
    ),
    Framework(
        "Pydantic AI, served by AG-UI",
        "coralmux-agent --ag-ui URL",
        "ag_ui_server.py",
        ("pydantic-ai-slim[ag-ui,openai]", "uvicorn"),
        {},
    ),
]
NO_CHAT = "it is a tool, and no chat"
MCP = Framework(  # see test_python_mcp.py
    "MCP, `ask_human` and `notify`",
    "coralmux-mcp",
    "mcp_client.py",
    ("mcp",),
    {check: NO_CHAT for check in ("text", "image", "tool", "memory", "cancel", "error")},
)


def tried():
    """All of them with WORKS_WITH=all, as `make works-with` sets it; else the quick ones."""
    is_all = os.environ.get("WORKS_WITH") == "all"
    return [framework for framework in FRAMEWORKS if is_all or framework.is_quick]


def record(framework, check, python=None, versions=None):
    """Keeps that a check has passed, and with which versions: those that the environment of `python` has, or these."""
    if versions:
        return keep(framework, check, {"versions": versions, "python": "-"})
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    versions = {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}
    found = {name: versions[name] for name in (package.split("[")[0] for package in framework.packages)}
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    return keep(framework, check, {"versions": found, "python": version})


def keep(framework, check, passed):
    passed |= {"check": check, "date": str(datetime.date.today())}
    folder = RESULTS / framework.program
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{check}.json").write_text(json.dumps(passed))


def forget(framework, check):
    """One of its tests has failed."""
    (RESULTS / framework.program / f"{check}.json").unlink(missing_ok=True)


def document():
    """The text of docs/WORKS-WITH.md, from what was recorded."""
    lines = [HEAD]
    dates = set()
    for framework in (*FRAMEWORKS, *BEHIND_THE_AGENT, MCP):
        passed = [json.loads(path.read_text()) for path in sorted((RESULTS / framework.program).glob("*.json"))]
        checks = {entry["check"] for entry in passed}
        dates |= {entry["date"] for entry in passed}
        versions = {f"{name} {version}" for entry in passed for name, version in entry["versions"].items()}
        pythons = {entry["python"] for entry in passed}
        cells = [framework.name, f"`{framework.adapter}`", ", ".join(sorted(versions)), ", ".join(sorted(pythons))]
        cells += ["yes" if check in checks else "-" if check in framework.lacks else "**no**" for check in CHECKS]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Run on {', '.join(sorted(dates))}. A dash:", ""]
    lacks = {}
    for framework in (*FRAMEWORKS, *BEHIND_THE_AGENT, MCP):
        for check, reason in framework.lacks.items():
            if framework is not MCP:
                lacks.setdefault((check, reason), []).append(framework.name)
    lines += [f"- {check}: {', '.join(names)} ({reason})." for (check, reason), names in lacks.items()]
    lines += [f"- MCP: {NO_CHAT}. Its client is the official package's.", "", SERVERS]
    return "\n".join(lines) + "\n"


HEAD = """# Works with

What was tried, by `make works-with`, which writes this file: each framework's own package, newest on the day of the run, in an
environment of its own with the wheel of [the Python package](../clients/python/README.md), or behind
[coralmux-agent](operations/clients.md#the-agent); its agent between a real relay and a phone that verifies the encryption; behind it an AI
server with OpenAI's API that answers by rule (`tests/interop/fake_ai.py`).

| column | passed means |
| --- | --- |
| text | the answer streams in pieces, and is complete |
| image | an image of the phone reaches the AI server byte by byte, or as the framework encodes it anew |
| tool | the phone hears that a tool is called and has ended, and the answer has its result |
| memory | the second question of a conversation knows the first, and no other conversation's |
| question | the framework asks, the person replies on the phone, in plain text and with buttons |
| cancel | the AI server's connection is closed within 10 s of "stop" on the phone |
| error | a failure of the AI server is told in words without its paths and keys, and the next question is answered |

| framework | adapter | versions | Python | text | image | tool | memory | question | cancel | error |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


SERVERS = """**AI servers** with OpenAI's API (Ollama, llama.cpp, vLLM and others) are not run here: `make test` has what they send, byte
for byte (`tests/interop/answers.json`)."""


if __name__ == "__main__":
    DOCUMENT.write_text(document() + phones.document())
    print(f"{DOCUMENT} is written.")
