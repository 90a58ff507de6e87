"""What people write about digests: the ``-s`` argument, ``-S`` files, and our own sums files.

Three questions are answered here. Which digests does a text give for an image (``parse_sums``,
``parse_sums_file``)? Are they enough (``meets``, ``is_weak``)? And whose word counts where the
command line, a sums file and the metadata disagree (``override``)? Nothing here computes a digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from glancing.errors import ConfigError, ErrorKind, ImageListError
from glancing.model import ALGORITHMS, MIB, Digest, Expected, algorithm_named

MAX_SUMS_FILE_BYTES = 2 * MIB
_MAX_LINE = 16 * 1024  # a path has at most 4096 bytes (PATH_MAX), each escaped at worst
_MAX_SHOWN = 80
_NAMES_SHOWN = 3
_WEAK = frozenset({"md5", "sha1"})

# --- the -s argument ------------------------------------------------------------------------------


def parse_sums(text: str) -> tuple[Digest, ...]:
    """The digests of ``-s``: separated by colons, in the order given (the seed's syntax).

    The algorithm follows from the length, unless the part before is its name
    (``sha512:abc…:md5:…``). Empty parts count for nothing, a digest given twice counts once.
    ConfigError of kind ``bad-digest`` for anything else, and for two values of one algorithm.
    """
    label: str | None = None
    found = []
    for part in filter(None, (part.strip() for part in text.split(":"))):
        if label is None and algorithm_named(part):
            label = part
            continue
        found.append(_digest_of_argument(label, part))
        label = None
    if label is not None:
        raise _bad_argument(f"-s names {label} but gives no digest after it")
    return _unique_of_operator(found, "-s")


def _digest_of_argument(label: str | None, part: str) -> Digest:
    try:
        return Digest.parse(label, part)
    except ValueError as error:
        raise _bad_argument(f"-s has a bad digest, {_shown(part)!r}: {error}") from None


def _unique_of_operator(digests: Iterable[Digest], source: str) -> tuple[Digest, ...]:
    try:
        return unique(digests)
    except ValueError as error:
        raise _bad_argument(f"{source} contradicts itself: {error}") from None


def _bad_argument(message: str) -> ConfigError:
    return ConfigError(
        message,
        kind=ErrorKind.BAD_DIGEST,
        hint="digests are hexadecimal: md5, sha1, sha224, sha256, sha384 or sha512",
    )


def unique(digests: Iterable[Digest]) -> tuple[Digest, ...]:
    """The same digests, each once; ValueError when one algorithm has two values."""
    by_algorithm: dict[str, Digest] = {}
    for digest in digests:
        if by_algorithm.setdefault(digest.algorithm, digest) != digest:
            raise ValueError(f"two different {digest.algorithm} digests of one image")
    return tuple(by_algorithm.values())


# --- checksum files -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a checksum file; ``name`` is None for a digest that stands alone."""

    label: str | None
    value: str
    name: str | None


def parse_sums_file(data: bytes, file_name: str, image_names: Sequence[str]) -> tuple[Digest, ...]:
    """What a checksum file says of an image; every dialect of GNU, BSD and PGP clear-signed files.

    ``file_name`` is the checksum file's own name, a hint at the algorithm (``SHA512SUMS``).
    ``image_names`` are the names that the image may bear in it: only whole names match, without
    their folder, and as they stand in a URL or percent-decoded. The signature of a clear-signed
    file is not verified here, but only signed text counts.

    ImageListError of kind ``bad-digest`` when the file cannot be read, contradicts itself, gives a
    digest that is none or does not name the image at all.
    """
    entries = tuple(_entries(_signed_text(_lines(data, file_name), file_name)))
    lone = len(entries) == 1 and entries[0].name is None
    matching = entries if lone else _matching(entries, image_names)
    if not matching:
        raise _names_nowhere(file_name, image_names, entries)
    hint = _algorithm_hint(file_name)
    digests = [_digest_of_entry(entry, hint, file_name) for entry in matching]
    try:
        return unique(digests)
    except ValueError as error:
        raise _bad_file(file_name, f"lists {error}") from None


def is_named_in(data: bytes, file_name: str, image_names: Sequence[str]) -> bool:
    """Whether a checksum file has a line for an image; raises as ``parse_sums_file`` does."""
    entries = _entries(_signed_text(_lines(data, file_name), file_name))
    return bool(_matching(tuple(entries), image_names))


def _matching(entries: Sequence[_Entry], image_names: Sequence[str]) -> tuple[_Entry, ...]:
    wanted = {form for name in image_names for form in _forms(name)}
    return tuple(entry for entry in entries if entry.name in wanted)


def _lines(data: bytes, file_name: str) -> list[str]:
    """The lines without their ends; names that are not UTF-8 stay what ``os.fsdecode`` gives."""
    if len(data) > MAX_SUMS_FILE_BYTES:
        raise _bad_file(file_name, f"has more than {MAX_SUMS_FILE_BYTES} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise _bad_file(file_name, "is UTF-16 or binary, not text")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


_PGP_BEGIN = "-----BEGIN PGP SIGNED MESSAGE-----"
_PGP_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"
_PGP_HEADER = re.compile(r"(?:Hash|SaltHash): .*")


def _signed_text(lines: list[str], file_name: str) -> list[str]:
    """The lines inside a clear-signed message (RFC 9580, section 7), all lines where there is none.

    Only ``Hash`` headers may stand before the blank line: anything else there would be text that
    looks signed and is not.
    """
    begins = [number for number, line in enumerate(lines) if line.rstrip() == _PGP_BEGIN]
    if not begins:
        return lines
    ends = [number for number, line in enumerate(lines) if line.rstrip() == _PGP_SIGNATURE]
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise _bad_file(file_name, "is not one whole PGP signed message")
    inside = lines[begins[0] + 1 : ends[0]]
    headers = next((n for n, line in enumerate(inside) if not line.strip()), None)
    if headers is None or not all(_PGP_HEADER.fullmatch(line) for line in inside[:headers]):
        raise _bad_file(file_name, "has text in the headers of its PGP signed message")
    return [line.removeprefix("- ") for line in inside[headers + 1 :]]


def _entries(lines: Iterable[str]) -> Iterator[_Entry]:
    for line in lines:
        if not line.strip() or line.startswith("#") or len(line) > _MAX_LINE:
            continue
        entry = _bsd_entry(line) or _gnu_entry(line) or _bare_entry(line)
        if entry is not None:
            yield entry


_LABEL = re.compile(r"[A-Za-z0-9/_-]+")


def _bsd_entry(line: str) -> _Entry | None:
    r"""``SHA256 (name) = hex`` of BSD and ``--tag``, ``SHA256(name)= hex`` of OpenSSL."""
    escaped, line = line.startswith("\\"), line.removeprefix("\\")
    head, separator, value = line.rpartition(")")
    label, opened, name = head.partition("(")
    equals, _, value = value.strip().partition("=")
    if not (separator and opened and not equals.strip() and _LABEL.fullmatch(label.rstrip(" "))):
        return None
    return _Entry(label.rstrip(" "), value.strip(), _file_name(name, escaped=escaped))


_GNU = re.compile(r"(\\?)(\S+?)(?: [ *]|[ \t])(.+)", re.DOTALL)


def _gnu_entry(line: str) -> _Entry | None:
    """``hex  name`` (text), ``hex *name`` (binary), ``hex name``; a backslash before: escaped."""
    found = _GNU.fullmatch(line)
    if found is None:
        return None
    escaped, token, name = found.groups()
    label, value = _split_prefix(token)
    return _Entry(label, value, _file_name(name, escaped=bool(escaped)))


def _bare_entry(line: str) -> _Entry | None:
    token = line.strip()
    if re.search(r"\s", token):
        return None
    return _Entry(*_split_prefix(token), name=None)


def _split_prefix(token: str) -> tuple[str | None, str]:
    label, separator, value = token.rpartition(":")
    return (label, value) if separator else (None, token)


_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}


def _file_name(name: str, *, escaped: bool) -> str:
    """The file's own name: unescaped as coreutils does, without folders."""
    if escaped:
        name = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), name)
    return name.rpartition("/")[2]


def _forms(image_name: str) -> set[str]:
    """An image's file name as it stands, and as a URL encodes it (RFC 3986, section 2.1)."""
    name = image_name.rpartition("/")[2]
    return {name, unquote(name, errors="surrogateescape").rpartition("/")[2]} - {""}


_HINT = re.compile(
    r"(?<![a-z0-9])"
    r"(md5|sha-?(?:1|224|256|384|512)|sha3-?\d*|b[23](?=sum)|blake\w*)"
    r"(?=sums?(?![a-z0-9])|[^a-z0-9]|$)"
)


def _algorithm_hint(file_name: str) -> str | None:
    """The algorithm that the file's name speaks of, nearest to its end: ``SHA512SUMS``, ``.md5``.

    Names of algorithms that are not read are kept too, so that a ``B2SUMS`` is refused and not
    taken for sha512.
    """
    found = _HINT.findall(unquote(file_name).rpartition("/")[2].lower())
    return found[-1] if found else None


def _digest_of_entry(entry: _Entry, hint: str | None, file_name: str) -> Digest:
    try:
        return Digest.parse(entry.label or hint, entry.value)
    except ValueError as error:
        of = f" of {_shown(entry.name)}" if entry.name else ""
        raise _bad_file(file_name, f"has a bad digest{of}: {error}") from None


def _names_nowhere(
    file_name: str, image_names: Sequence[str], entries: Sequence[_Entry]
) -> ImageListError:
    wanted = " or ".join(dict.fromkeys(_shown(name) for name in image_names)) or "an image"
    names = [_shown(entry.name) for entry in entries if entry.name]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    has = f"it names {', '.join(names[:_NAMES_SHOWN])}{more}" if names else "it names no file"
    return _bad_file(file_name, f"has no digest of {wanted}", hint=has)


def _bad_file(file_name: str, message: str, *, hint: str | None = None) -> ImageListError:
    what = f"the checksum file {_shown(file_name)} {message}"
    return ImageListError(what, kind=ErrorKind.BAD_DIGEST, hint=hint)


def _shown(text: str) -> str:
    """A stranger's text for a message: short, and always encodable."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[:_MAX_SHOWN]}…"


# --- what digests are worth -----------------------------------------------------------------------


def strongest(digests: Iterable[Digest]) -> Digest | None:
    """The digest that is hardest to forge; None when there is none at all."""
    return max(digests, key=lambda digest: ALGORITHMS.index(digest.algorithm), default=None)


def meets(digests: Iterable[Digest], requirement: str) -> bool:
    """Whether there is a digest at all (``any``), or one of that algorithm or a stronger one.

    ConfigError when the requirement is neither ``any`` nor an algorithm.
    """
    best = strongest(digests)
    if requirement.strip().lower() == "any":
        return best is not None
    weakest = algorithm_named(requirement)
    if weakest is None:
        raise ConfigError(f"no digest algorithm is called {_shown(requirement)!r}")
    return best is not None and ALGORITHMS.index(best.algorithm) >= ALGORITHMS.index(weakest)


def is_weak(digests: Iterable[Digest]) -> bool:
    """Whether there are digests, but none that withstands an attacker (only md5 and sha1)."""
    algorithms = {digest.algorithm for digest in digests}
    return bool(algorithms) and algorithms <= _WEAK


# --- whose word counts ----------------------------------------------------------------------------


def override(
    expected: Expected, *, sums: tuple[Digest, ...] = (), sums_files: tuple[Digest, ...] = ()
) -> tuple[Expected, tuple[str, ...]]:
    """Let ``-s`` take precedence over ``-S``, and ``-S`` over the metadata (the seed's priority).

    A digest replaces those of its algorithm that have less authority, on whichever side of the
    decompressor; other algorithms stay and must hold as well. ``-S`` digests are of the published
    file; ``-s`` ones take the side that the metadata gives, and either side where it gives none or
    both. Returned with what is expected now: a note about each digest that gave way to another.

    ConfigError when ``-s``, or the files of ``-S`` between them, contradict themselves.
    """
    side = _side(expected)
    files = _unique_of_operator(sums_files, "-S")
    with_files, notes = _take(expected, files, "published", "-S")
    argument = _unique_of_operator(sums, "-s")
    result, more = _take(with_files, argument, side, "-s")
    return result, notes + more


_SIDES = ("published", "image", "either")


def _side(expected: Expected) -> str:
    match bool(expected.published), bool(expected.image), bool(expected.either):
        case True, False, False:
            return "published"
        case False, True, False:
            return "image"
        case _:
            return "either"


def _take(
    expected: Expected, digests: tuple[Digest, ...], side: str, authority: str
) -> tuple[Expected, tuple[str, ...]]:
    """Put digests on a side, and drop all others of their algorithms."""
    new = {digest.algorithm: digest for digest in digests}
    sides: dict[str, tuple[Digest, ...]] = {name: getattr(expected, name) for name in _SIDES}
    notes = tuple(
        f"{old} ({name}) gives way to {authority}"
        for name, olds in sides.items()
        for old in olds
        if new.get(old.algorithm, old) != old
    )
    kept = {
        name: tuple(old for old in olds if old.algorithm not in new) for name, olds in sides.items()
    }
    kept[side] += digests
    changed = replace(
        expected, published=kept["published"], image=kept["image"], either=kept["either"]
    )
    return changed, notes


# --- our own sums files ---------------------------------------------------------------------------


def sums_file_name(algorithm: str) -> str:
    """The customary name of a file of sums: ``MD5SUMS``, ``SHA256SUMS``."""
    return f"{algorithm.upper()}SUMS"


_TO_ESCAPE = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r"})


def sums_line(digest: Digest, file_name: str) -> str:
    r"""One line as GNU md5sum, sha256sum, … print it, newline included.

    A name with a backslash, newline or carriage return is escaped and the line begins with a
    backslash (coreutils manual, "md5sum invocation"). Names that are not UTF-8 come as
    ``os.fsdecode`` gives them and go out through ``os.fsencode``.
    """
    escaped = file_name.translate(_TO_ESCAPE)
    mark = "\\" if escaped != file_name else ""
    return f"{mark}{digest.value}  {escaped}\n"
