"""An agent of AutoGen's AgentChat."""

import os
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

from coralmux import Agent
from coralmux.autogen import answers, ask

INFO = {"vision": True, "function_calling": True, "json_output": False, "family": "unknown", "structured_output": False}


async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def consent(what: str) -> str:
    """Asks the person."""
    return await ask(f"May I {what}?")


def make_agent():
    client = OpenAIChatCompletionClient(
        model="fake-model", base_url=os.environ["FAKE_AI"], api_key="x", model_info=INFO, max_retries=0
    )
    return AssistantAgent("helper", client, tools=[add, consent], model_client_stream=True, reflect_on_tool_use=True)


Agent(sys.argv[1], state=sys.argv[2], name="AutoGen").serve(answers(make_agent))
