"""How versions of images are ordered, everywhere the same."""

from __future__ import annotations

import re


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions naturally: numbers as numbers, words as words, part by part.

    Numbers are compared by length, then as text, so that one of a thousand digits is no trouble.
    """
    parts = re.findall(r"[0-9]+|[^\W0-9_]+", version)
    return tuple(_number(part.lstrip("0")) if _is_number(part) else (0, 0, part) for part in parts)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def _number(digits: str) -> tuple[int, int, str]:
    return (1, len(digits), digits)
