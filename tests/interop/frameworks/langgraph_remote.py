"""A graph on a LangGraph server (`langgraph dev`), which this program starts, by RemoteGraph."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.types import interrupt

START_TIMEOUT = 90


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def consent(what: str) -> str:
    """Asks the person."""
    return interrupt({"question": f"May I {what}?", "options": ["Yes", "No"]})


model = ChatOpenAI(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", max_retries=0)
graph = create_agent(model, [add, consent])  # the server keeps the threads


def start_server(folder):
    """Its process and its address, as soon as it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {"dependencies": [str(folder)], "graphs": {"agent": f"{pathlib.Path(__file__).resolve()}:graph"}}
    (folder / "langgraph.json").write_text(json.dumps(config))
    command = [pathlib.Path(sys.executable).with_name("langgraph"), "dev", "--no-browser", "--no-reload"]
    command += ["--port", str(port), "--config", str(folder / "langgraph.json")]
    server = subprocess.Popen(command, cwd=folder)
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ok", timeout=5):
                return server, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.2)
    server.kill()
    sys.exit("the LangGraph server does not answer")


if __name__ == "__main__":
    from langgraph.pregel.remote import RemoteGraph

    from coralmux import Agent
    from coralmux.langchain import answers

    server, url = start_server(pathlib.Path(sys.argv[2]).parent)
    try:
        Agent(sys.argv[1], state=sys.argv[2], name="Remote").serve(answers(RemoteGraph("agent", url=url)))
    finally:
        server.terminate()
        server.wait(10)
