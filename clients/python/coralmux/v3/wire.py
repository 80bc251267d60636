"""The payloads of version 3."""

from __future__ import annotations

from typing import Any

from .. import crypto

NUMBER_MAX = 2**53 - 1


class Malformed(ValueError):
    """A payload that does not have the form of version 3."""


def enclose(sid: bytes, number: int, nonce: bytes, ciphertext: bytes) -> dict[str, Any]:
    place = {"enc": True, "v": 3, "s": crypto.b64url(sid), "i": number}
    return place | {"ciphertext": crypto.b64(ciphertext), "nonce": crypto.b64(nonce)}


def enclosed(payload: dict[str, Any]) -> tuple[bytes, int, bytes, bytes]:
    """`sid`, number, nonce, ciphertext."""
    number, version = payload.get("i"), payload.get("v")
    if type(version) is not int or version != 3:
        raise Malformed("the version is not 3")
    if type(number) is not int or not 0 <= number <= NUMBER_MAX:
        raise Malformed("the number is not one")
    try:
        sid = crypto.unb64url(payload.get("s"))
        nonce, ciphertext = crypto.enclosed(payload)
    except ValueError as error:
        raise Malformed(str(error)) from None
    if len(sid) != 8:
        raise Malformed("a session's name has 8 bytes")
    return sid, number, nonce, ciphertext


def key_exchange(noise: bytes, enrol: int | None = None, re: str | None = None) -> dict[str, Any]:
    payload = {"e2e": 3, "enrol": enrol, "noise": crypto.b64(noise), "re": re}
    return {name: value for name, value in payload.items() if value is not None}


def parse_key_exchange(payload: Any) -> tuple[int | None, bytes, str | None] | None:
    """`enrol`, the Noise message, `re`; None where it is not of version 3."""
    if not isinstance(payload, dict) or type(payload.get("e2e")) is not int or payload["e2e"] != 3:
        return None
    enrol, re = payload.get("enrol"), payload.get("re")
    known = enrol is None or (type(enrol) is int and enrol in (1, 2, 3))
    if not known or not isinstance(re, str | None):
        return None
    try:
        return enrol, crypto.unb64(payload.get("noise")), re
    except ValueError:
        return None
