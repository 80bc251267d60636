"""A token of one's own from a relay that lets clients register."""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO

from .client import leads_here
from .relay_url import RelayUrl

TIMEOUT = 20
ANSWER_BYTES_MAX = 64 << 10
TOKEN = re.compile(r"oc_pair_[0-9a-f]{32}")
RETRY_AFTER_MAX = 3600.0


class RegisterError(Exception):
    """There is no token. `final`: waiting does not help; `retry_after`: seconds that the relay asks to wait."""

    def __init__(self, text: str, final: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.final, self.retry_after = final, retry_after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is taken from the relay alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def register(relay: RelayUrl, context: ssl.SSLContext | None = None) -> str:
    """Asks the relay for a new token, through the proxy that the environment names. Blocks, for up to 20 s. Raises
    RegisterError."""
    url = f"{relay.http}/api/v1/register"
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), urllib.request.HTTPSHandler(context=context)]
    if leads_here(url):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=b"", method="POST")
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as answer:
            status, body = answer.status, answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from None
    except (OSError, HTTPException) as error:
        raise RegisterError(f"cannot reach {url}: {getattr(error, 'reason', error)}") from None
    try:
        token = json.loads(body)["token"]
    except (ValueError, KeyError, TypeError):
        token = None
    if status != 201 or not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise RegisterError(f"{url} answered {status}, without a token: is it a relay?")
    return token


def _refusal(url: str, error: urllib.error.HTTPError) -> RegisterError:
    if error.code == 403:
        return RegisterError("the relay does not let clients register: ask its operator for a token", final=True)
    if error.code == 429:
        after = error.headers.get("Retry-After", "")
        wait = min(float(after), RETRY_AFTER_MAX) if after.isascii() and after.isdigit() else 0.0
        return RegisterError("the relay registers no more from this address for now", retry_after=wait)
    return RegisterError(f"{url} answered {error.code}: is it a relay?")
