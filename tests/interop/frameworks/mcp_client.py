"""An MCP client on the official package: starts coralmux-mcp, and does what its standard input says, a line of JSON each.

    python mcp_client.py COMMAND [ARGUMENT ...]
"""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


def say(value):
    print(json.dumps(value), flush=True)


async def main():
    loop, running = asyncio.get_running_loop(), {}
    async with stdio_client(StdioServerParameters(command=sys.argv[1], args=sys.argv[2:])) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            say(sorted(tool.name for tool in (await session.list_tools()).tools))

            async def call(tool, arguments):
                result = await session.call_tool(tool, arguments)
                is_error = getattr(result, "is_error", None) or getattr(result, "isError", False)
                say({"error": bool(is_error), "text": "".join(part.text for part in result.content)})

            while line := await loop.run_in_executor(None, sys.stdin.readline):
                what = json.loads(line)
                task = asyncio.create_task(call(what["tool"], what["arguments"]))
                running[task] = None
                task.add_done_callback(running.pop)


asyncio.run(main())
