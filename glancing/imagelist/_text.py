"""Texts of strangers: what may be read as text, and what of it may be shown."""

from __future__ import annotations

import re

from glancing.errors import ErrorKind, ImageListError

_MAX_SHOWN = 200
# Control characters, unpaired surrogates, line and paragraph separators
_NEVER_IN_NAMES = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u2028\\u2029]")
UTF8_BOM = b"\xef\xbb\xbf"


def text_bytes(data: bytes, what: str, kind: ErrorKind) -> bytes:
    """The bytes without a UTF-8 byte order mark; ImageListError when they are UTF-16 or binary."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise ImageListError(
            f"{what} is UTF-16 or binary, not text", kind=kind, hint="save it as UTF-8"
        )
    return data.removeprefix(UTF8_BOM)


def has_control(text: str) -> bool:
    """Whether a text has characters that no name or address may have."""
    return _NEVER_IN_NAMES.search(text) is not None


def clipped(text: str) -> str:
    """A text for a message or a result: always encodable, never longer than a few lines."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[:_MAX_SHOWN]}…"
