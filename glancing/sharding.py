"""Gives each image of a list to exactly one of several runs that share the list.

Rendezvous hashing: every shard has a weight for every image, and the heaviest has it. All runs come
to the same answer without talking to each other, and one shard more takes its share evenly from the
others: of N+1 shards, the new one gets about one image in N+1, and no other image moves.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9]{1,5})/([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of ``count``; ``index`` counts from 0, like Kubernetes' JOB_COMPLETION_INDEX."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``I/N``; ValueError unless 0 <= I < N."""
        match = _FORM.fullmatch(text.strip())
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"{text!r} is not I/N with I from 0 to N-1")
        return cls(int(match[1]), int(match[2]))

    def has(self, identity: str) -> bool:
        """Whether the image of this identity belongs to this shard."""
        return self.count == 1 or owner(identity, self.count) == self.index


def owner(identity: str, count: int) -> int:
    """The index of the shard that an image belongs to."""
    return max(range(count), key=lambda index: _weight(identity, index))


def _weight(identity: str, index: int) -> bytes:
    return hashlib.sha256(f"{index}\0{identity}".encode("utf-8", "surrogatepass")).digest()
