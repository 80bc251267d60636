"""An agent of the OpenAI Agents SDK, with a tool that needs approval."""

import os
import sys

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import Agent as Helper  # noqa: E402
from agents import OpenAIResponsesModel, function_tool  # noqa: E402
from openai import AsyncOpenAI  # noqa: E402

from coralmux import Agent  # noqa: E402
from coralmux.openai_agents import answers  # noqa: E402


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@function_tool(needs_approval=True)
def consent(what: str) -> str:
    """Does it."""
    return f"did {what}"


model = OpenAIResponsesModel("fake-model", AsyncOpenAI(base_url=os.environ["FAKE_AI"], api_key="x", max_retries=0))
helper = Helper(name="helper", tools=[add, consent], model=model)
Agent(sys.argv[1], state=sys.argv[2], name="OpenAI Agents").serve(answers(helper))
