"""An agent of Pydantic AI, served by AG-UI."""

import os
import subprocess
import sys

import uvicorn
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.ui.ag_ui import AGUIAdapter
from starlette.applications import Starlette
from starlette.routing import Route

provider = OpenAIProvider(base_url=os.environ["FAKE_AI"], api_key="x")
helper = Agent(OpenAIChatModel("fake-model", provider=provider), output_type=[str, DeferredToolRequests])


@helper.tool_plain(requires_approval=True)
def shell(command: str) -> str:
    """Runs a command."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


async def run(request):
    return await AGUIAdapter.dispatch_request(request, agent=helper)


uvicorn.run(Starlette(routes=[Route("/", run, methods=["POST"])]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
