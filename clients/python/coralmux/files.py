"""Images and other files that an agent sends (`chat.file`), within the protocol's bounds; in words for phones that show
none."""

from __future__ import annotations

import base64
import mimetypes
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .question import Image

BYTES_MAX = 2_621_440  # base64 and the encryption's base64 make one message of it
FILES_MAX = 16  # of an answer
NAME_MAX, MIME_MAX = 100, 100
UNKNOWN = "application/octet-stream"


@dataclass(frozen=True)
class File:
    """A file of the agent's for the person. `mime`: from the name's ending, if nothing else is said."""

    name: str
    data: bytes = field(repr=False)
    mime: str = ""

    @classmethod
    def read(cls, path: str | Path) -> File:
        """From the disk. Raises OSError."""
        return cls(Path(path).name, Path(path).read_bytes())


def file_of(piece: File | Image, number: int) -> File:
    """As it is sent: with a name that a phone can store it by, and a media type."""
    if isinstance(piece, Image):
        kind = piece.mime.rpartition("/")[2].partition("+")[0]
        piece = File(f"image-{number}.{'jpg' if kind == 'jpeg' else kind}", piece.data, piece.mime)
    shown = (c for c in piece.name if unicodedata.category(c) not in ("Cc", "Cs") and c not in "/\\")
    name = "".join(shown)[-NAME_MAX:] or f"file-{number}"
    return File(name, piece.data, (piece.mime or mimetypes.guess_type(name)[0] or UNKNOWN)[:MIME_MAX])


def payload(file: File) -> dict[str, Any]:
    """As `chat.file` has it."""
    return {"name": file.name, "mime": file.mime, "data": base64.b64encode(file.data).decode()}


def words(file: File, why: str) -> str:
    """What is said in its place."""
    kind = "Image" if file.mime.startswith("image/") else "File"
    return f"\n\n[{kind} {file.name}, {_size(len(file.data))}: {why}.]\n\n"


def _size(count: int) -> str:
    return f"{count} bytes" if count < 1000 else f"{count / 1e3:.0f} KB" if count < 1e6 else f"{count / 1e6:.1f} MB"
