"""JSON of strangers, read strictly (fault 25): what is read means one thing, or it is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist._text import clipped, text_bytes
from glancing.model import MIB

MAX_JSON_BYTES = 64 * MIB


def load(data: bytes, what: str, kind: ErrorKind) -> object:
    """The value of a UTF-8 document (RFC 8259), with or without a byte order mark.

    ImageListError of the given kind for anything that is not JSON, and for what parsers disagree
    on: names that stand twice, NaN and infinities, unpaired surrogates, numbers of thousands of
    digits, nesting without end, more than 64 MiB.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ImageListError(f"{what} has more than {MAX_JSON_BYTES} bytes", kind=kind)
    try:
        return _strict(text_bytes(data, what, kind).decode())
    except UnicodeError:
        raise ImageListError(f"{what} is not UTF-8", kind=kind) from None
    except RecursionError:
        raise ImageListError(f"{what} is nested too deeply", kind=kind) from None
    except ValueError as error:
        raise ImageListError(
            f"{what} is not proper JSON: {clipped(str(error))}", kind=kind
        ) from None


def _strict(text: str) -> object:
    value: object = json.loads(
        text,
        object_pairs_hook=_object,
        parse_float=_finite,
        parse_constant=_no_constant,
    )
    if "\\u" in text:  # an escape is the only way to an unpaired surrogate, which nothing can print
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def as_object(value: object, what: str, kind: ErrorKind) -> Mapping[str, object]:
    """The value as a JSON object; ImageListError naming what it should have been."""
    if not isinstance(value, dict):
        raise ImageListError(f"{what} is not a JSON object", kind=kind)
    return value


def as_array(value: object, what: str, kind: ErrorKind) -> list[object]:
    """The value as a JSON array; ImageListError naming what it should have been."""
    if not isinstance(value, list):
        raise ImageListError(f"{what} is not a JSON array", kind=kind)
    return value
