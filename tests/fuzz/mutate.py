"""Variants of documents: what a fuzzer without a compiler's help can do, the same for one seed."""

from __future__ import annotations

import random

_TOKENS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n", b"\n\n", b"{", b"[", b"<", b'"',
    b"-1", b"0", b"1e999", b"9" * 30, b"NaN", b"null", b"&x;", b"<!DOCTYPE x>", b"--B7", b"://",
    b"@", b"%00", b"..", b"=", b":", b"PK\x01\x02", b"PK\x05\x06", b"\xff\xff\xff\xff",
)  # fmt: skip
MAX_BYTES = 1 << 20


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """A few changes of a document; ``other`` is one to take parts of."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        _change(result, other, chance)
    return bytes(result[:MAX_BYTES])


def _change(result: bytearray, other: bytes, chance: random.Random) -> None:
    at = chance.randint(0, len(result))
    end = min(len(result), at + chance.choice((1, 2, 4, 16, 256)))
    match chance.randrange(7):
        case 0:
            result[at : at + 1] = bytes([chance.randrange(256)])
        case 1:
            del result[at:end]
        case 2:
            result[at:at] = chance.choice(_TOKENS)
        case 3:
            result[at:at] = result[at:end] * chance.choice((1, 2, 100))
        case 4:
            begin = chance.randint(0, len(other))
            result[at:at] = other[begin : begin + chance.choice((4, 64, 1024))]
        case 5:
            del result[at:]
        case _:
            if at < len(result):
                result[at] ^= 1 << chance.randrange(8)
