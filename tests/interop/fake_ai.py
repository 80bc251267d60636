"""An AI server with OpenAI's API that thinks nothing: it says the last question's words in reverse order.

It speaks `/v1/chat/completions` and `/v1/responses`, streamed or whole, and keeps what it was asked.

- `TOOL:name TOOLARGS:{...}` in a question: it calls that tool, if it is offered, and then says what the tool said.
- images of the question: it says their type, length and hash.
- `SLOW`: a word every 50 ms, for a minute; `slow` tells how many such answers are in progress.
- `FAIL`: status 500, with a path and a key in its words.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re

DELAY = 0.02
SLOW_WORDS, SLOW_DELAY = 1200, 0.05
FAILURE = "no such key: sk-abcdefghijklmnop in /srv/secret/keys.txt"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
RESPONSE_USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def seen(mime, data):
    """How it says that it has seen an image."""
    return f"[image:{mime}:{len(data)}:{hashlib.sha256(data).hexdigest()[:8]}]"


def text_of(content):
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or [] if isinstance(part, dict))


def images_of(content):
    for part in content if isinstance(content, list) else []:
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if url and url.startswith("data:"):
            head, _, data = url.partition(",")
            yield seen(head[5:].split(";")[0], base64.b64decode(data))


def question_at(messages):
    """Where the last question is. OpenClaw adds words of its own behind it, as the person's."""

    def asks(message):
        return message.get("role") == "user" and not text_of(message.get("content")).startswith("<<<BEGIN_OPENCLAW")

    return max((at for at, message in enumerate(messages) if asks(message)), default=None)


def plan(messages, tools):
    """What it does: the words that it says, or the name and arguments of a tool."""
    at = question_at(messages)
    question = messages[at] if at is not None else {}
    text = text_of(question.get("content"))
    after = messages[at + 1 :] if at is not None else []
    results = [m for m in after if m.get("role") == "tool" or m.get("type") == "function_call_output"]
    if results:
        said = text_of(results[-1].get("content") or results[-1].get("output"))
        return ["tool", "said", *said.split()[:20]], None
    offered = [(tool.get("function") or tool).get("name") for tool in tools or []]
    if (called := re.search(r"TOOL:(\w+)", text)) and called[1] in offered:
        arguments = re.search(r"TOOLARGS:(\{.*?\})", text)
        return [], (called[1], arguments[1] if arguments else "{}")
    if "SLOW" in text:
        return [f"word{number}" for number in range(SLOW_WORDS)], None
    return [*reversed(text.split()[-200:]), *images_of(question.get("content"))] or ["(empty)"], None


class FakeAi:
    """Use it as a context manager; `url` ends with /v1."""

    def __init__(self):
        self.requests = []
        self.slow = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split(" ", 2)
            if method == "GET":
                await self._whole(writer, {"object": "list", "data": [{"id": "fake-model", "object": "model"}]})
            else:
                length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                answering = asyncio.create_task(self._answer(writer, path, body))
                leaving = asyncio.create_task(reader.read())  # ends where the client has closed
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                for task in (answering, leaving):
                    task.cancel()
                await asyncio.gather(answering, leaving, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    async def _whole(self, writer, answer, status="200 OK"):
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)
        await writer.drain()

    async def _answer(self, writer, path, body):
        messages = body.get("input", body.get("messages"))
        messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        at = question_at(messages)
        if at is not None and "FAIL" in text_of(messages[at].get("content")):
            error = {"error": {"message": FAILURE, "type": "server_error"}}
            await self._whole(writer, error, "400 Bad Request")  # which no framework tries again
            return
        words, call = plan(messages, body.get("tools"))
        is_slow = len(words) == SLOW_WORDS
        pieces = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
        self.slow += is_slow
        try:
            speak = self._respond if path.endswith("/responses") else self._chat
            await speak(writer, body, pieces, call, SLOW_DELAY if is_slow else DELAY)
        finally:
            self.slow -= is_slow

    async def _begin_stream(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")

    async def _chat(self, writer, body, pieces, call, delay):
        base = {"id": "chatcmpl-fake", "created": 1, "model": "fake-model"}
        tool = call and {"id": "call_1", "type": "function", "function": {"name": call[0], "arguments": call[1]}}
        reason = "tool_calls" if tool else "stop"
        if not body.get("stream"):
            await asyncio.sleep(delay * len(pieces))
            message = {"role": "assistant", "content": None if tool else "".join(pieces)}
            message |= {"tool_calls": [tool]} if tool else {}
            choices = [{"index": 0, "finish_reason": reason, "message": message}]
            await self._whole(writer, base | {"object": "chat.completion", "usage": USAGE, "choices": choices})
            return

        async def chunk(choices, **more):
            event = base | {"object": "chat.completion.chunk", "choices": choices} | more
            writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await writer.drain()

        async def delta(delta, reason=None):
            await chunk([{"index": 0, "delta": delta, "finish_reason": reason}])

        await self._begin_stream(writer)
        await delta({"role": "assistant", "content": ""})
        for piece in pieces:
            await delta({"content": piece})
            await asyncio.sleep(delay)
        if tool:
            await delta({"tool_calls": [{"index": 0, **tool}]})
        await delta({}, reason)
        if (body.get("stream_options") or {}).get("include_usage"):
            await chunk([], usage=USAGE)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _respond(self, writer, body, pieces, call, delay):
        text = "".join(pieces)
        if call:
            item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": call[0], "arguments": call[1]}
        else:
            content = [{"type": "output_text", "text": text, "annotations": []}]
            item = {"type": "message", "id": "msg_1", "role": "assistant", "content": content}
        item["status"] = "completed"
        whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "fake-model"}
        whole |= {"output": [item], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
        whole |= {"incomplete_details": None, "instructions": None, "metadata": {}, "usage": RESPONSE_USAGE}
        if not body.get("stream"):
            await asyncio.sleep(delay * len(pieces))
            await self._whole(writer, whole)
            return
        number = 0

        async def event(kind, **more):
            nonlocal number
            data = json.dumps({"type": kind, "sequence_number": number, **more})
            writer.write(f"event: {kind}\ndata: {data}\n\n".encode())
            await writer.drain()
            number += 1

        await self._begin_stream(writer)
        await event("response.created", response=whole | {"status": "in_progress", "output": [], "usage": None})
        begun = item | {"status": "in_progress"} | ({"arguments": ""} if call else {"content": []})
        await event("response.output_item.added", output_index=0, item=begun)
        if call:
            at = {"output_index": 0, "item_id": "fc_1"}
            await event("response.function_call_arguments.delta", delta=call[1], **at)
            await event("response.function_call_arguments.done", arguments=call[1], name=call[0], **at)
        else:
            at = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
            await event(
                "response.content_part.added", part={"type": "output_text", "text": "", "annotations": []}, **at
            )
            for piece in pieces:
                await event("response.output_text.delta", delta=piece, logprobs=[], **at)
                await asyncio.sleep(delay)
            await event("response.output_text.done", text=text, logprobs=[], **at)
            await event("response.content_part.done", part=item["content"][0], **at)
        await event("response.output_item.done", output_index=0, item=item)
        await event("response.completed", response=whole)
