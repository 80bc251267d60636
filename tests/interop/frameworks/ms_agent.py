"""An agent of the Microsoft Agent Framework."""

import os
import sys

from agent_framework import Agent as Helper
from agent_framework import tool
from agent_framework.openai import OpenAIChatCompletionClient

from coralmux import Agent
from coralmux.agent_framework import answers


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool(approval_mode="always_require")
def consent(what: str) -> str:
    """Does it."""
    return f"did {what}"


client = OpenAIChatCompletionClient(model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x")
helper = Helper(client, "Be brief.", tools=[add, consent])
Agent(sys.argv[1], state=sys.argv[2], name="Agent Framework").serve(answers(helper))
