"""Words of a program's error for somebody else's screen: without the paths and keys that such texts are full of."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

TEXT_MAX = 300
SECRET_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
SECRET_MIN = 6  # a shorter value of such a variable is no secret of anybody's

KEYS = re.compile(
    r"\b(?:sk|pk|rk|key|r8|gsk|hf|xai|pplx|nvapi|ghp|oc_pair)[-_][A-Za-z0-9*._~+/=-]{8,}"
    r"|\bAIza[A-Za-z0-9_-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]+"
)
NAMED = re.compile(
    r"((?:bearer|basic)\s+|(?:api[-_ ]?key|token|secret|password|authorization)[\"']?\s*(?:[:=]|is)\s*[\"']?)"
    r"([^\s\"'&,;]{4,})",
    re.IGNORECASE,
)
USER = re.compile(r"(://)[^\s/@]+@")
LINK = re.compile(r"openclaw://\S+|https?://\S*#token=\S+")
PATHS = re.compile(
    r"(?:file://)?(?<![\w:/.])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:*?\"'<>|,;()]+){2,}[/\\]?"
    r"|\b[A-Za-z]:\\[^\s\"'<>|]*"
)


def words_of(error: BaseException, env: Mapping[str, str] = os.environ) -> str:
    """What an exception says, on one line; of a group, the first one's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(masked(str(error), env).split())
    name = type(error).__name__
    text = f"{name}: {text}" if text else name
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "\u2026"


def masked(text: str, env: Mapping[str, str] = os.environ) -> str:
    """The text with `***` in place of what looks like a key, or is one of the environment's, and `...` of a path."""
    secrets = {value for name, value in env.items() if SECRET_NAMES.search(name) and len(value) >= SECRET_MIN}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = LINK.sub("***", text)
    text = NAMED.sub(r"\1***", text)
    text = KEYS.sub("***", text)
    text = USER.sub(r"\1***@", text)
    return PATHS.sub("...", text)
