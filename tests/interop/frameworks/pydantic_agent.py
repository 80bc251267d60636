"""An agent of Pydantic AI."""

import os
import sys

from pydantic_ai import Agent as Helper
from pydantic_ai import DeferredToolRequests
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from coralmux import Agent
from coralmux.pydantic_ai import answers

provider = OpenAIProvider(base_url=os.environ["FAKE_AI"], api_key="x")
helper = Helper(OpenAIChatModel("fake-model", provider=provider), output_type=[str, DeferredToolRequests])


@helper.tool_plain
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@helper.tool_plain(requires_approval=True)
def consent(what: str) -> str:
    """Does it."""
    return f"did {what}"


Agent(sys.argv[1], state=sys.argv[2], name="Pydantic AI").serve(answers(helper))
