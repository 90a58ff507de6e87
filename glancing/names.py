"""Distinguished names in slash form, as grid certificates and HEPiX lists write them.

``/DC=ch/DC=cern/CN=…``, in the order of the certificate. A name that could be read in two ways is
no name: a part whose value looks like the beginning of the next one, or that has two attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"/([A-Za-z][A-Za-z0-9.-]*|\d+(?:\.\d+)+)=")
_SAME_TYPE = {"email": "emailaddress", "e": "emailaddress", "userid": "uid"}

Name = tuple[tuple[str, str], ...]


def parse_name(text: str) -> Name | None:
    """The parts of a name, their types in lower case; None for anything else."""
    places = list(_PART.finditer(text))
    if not places or places[0].start() != 0:
        return None
    ends = [place.start() for place in places[1:]] + [len(text)]
    pairs = ((p[1], text[p.end() : end]) for p, end in zip(places, ends, strict=True))
    return tuple((_SAME_TYPE.get(key.lower(), key.lower()), value) for key, value in pairs)


def slashed(parts: Iterable[str]) -> str | None:
    """The slash form of ``TYPE=value`` parts; None where it could be read in another way."""
    given = [f"/{part}" for part in parts]
    text = "".join(given)
    return text if given and len(parse_name(text) or ()) == len(given) else None


def is_same_name(one: str, other: str) -> bool:
    """Whether two names in slash form are one name; a text that is no name equals nothing."""
    first = parse_name(one)
    return first is not None and first == parse_name(other)
