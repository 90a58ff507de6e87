"""Fields that several formats share: addresses, names, sizes, digests, formats, compressions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from urllib.parse import unquote, urldefrag, urlsplit

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist._text import clipped, has_control
from glancing.model import Compression, Digest, Url

MAX_URL_CHARACTERS = 8000
"""What every server is asked to support (RFC 9110, section 4.1)."""

MAX_NAME_CHARACTERS = 255
"""Glance answers 400 to longer names."""

_MAX_SIZE_DIGITS = 19  # 2**63 - 1 bytes has 19 digits

# --- addresses ------------------------------------------------------------------------------------

_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]*)://|(https?|ftps?|file|data|oci|s3):")


def scheme_of(text: str) -> str | None:
    """The scheme when a text is a URL, in lower case; None for anything that reads as a path."""
    found = _SCHEME.match(text)
    return (found[1] or found[2]).lower() if found else None


def http_url(text: str, kind: ErrorKind = ErrorKind.BAD_LIST) -> Url:
    """The URL without its fragment, which is never sent (RFC 9110, section 7.1).

    ImageListError, showing no secret, for other schemes and for what two readers could read in
    two ways: no host, a bad port, white space, control characters, backslashes.
    """
    problem = _problem_of_url(text)
    if problem is not None:
        raise ImageListError(f"{shown(text)}: {problem}", kind=kind, hint=_URL_HINT)
    return Url(urldefrag(text).url)


def file_path(text: str, kind: ErrorKind = ErrorKind.BAD_LIST) -> str:
    """The path of a ``file:`` URL (RFC 8089); ImageListError when it is not of this machine."""
    parts = urlsplit(text)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query:
        what = f"{shown(text)} names no file of this machine"
        raise ImageListError(what, kind=kind, hint="file:///absolute/path")
    return path


_URL_HINT = "only http:// and https:// addresses are downloaded"


def _problem_of_url(text: str) -> str | None:
    if scheme_of(text) not in ("http", "https"):
        return f"addresses of scheme {scheme_of(text)} are not supported"
    if len(text) > MAX_URL_CHARACTERS:
        return f"the URL has more than {MAX_URL_CHARACTERS} characters"
    if re.search(r"[\s\\]", text) or has_control(text):
        return "the URL has white space, a backslash or control characters"
    try:
        parts = Url(text).parts
        host_is_good, _ = bool(parts.hostname), parts.port
    except ValueError:
        return "the URL cannot be read (bad host or port)"
    return None if host_is_good and "//" in text else "the URL names no host"


def shown(text: str) -> str:
    """How an address or a path may be printed: without user info, query and fragment.

    Where the URL is broken, everything up to the last ``@`` might be a password.
    """
    scheme = scheme_of(text)
    if scheme is None:
        return clipped(text)
    if _problem_of_url(text) is None:
        return clipped(Url(text).public)
    rest = text[len(scheme) + 1 :].removeprefix("//").rpartition("@")[2]
    return clipped(f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}")


def name_of_url(public: str) -> str:
    """The file name that a public URL ends in, percent-decoded, without its last suffix.

    ImageListError when the path names no file.
    """
    path = public.partition("://")[2].partition("/")[2]
    file_name = posixpath.basename(unquote(posixpath.basename(path)))
    return image_name(posixpath.splitext(file_name)[0], public)


def image_name(name: str, of: str, kind: ErrorKind = ErrorKind.BAD_LIST) -> str:
    """The name where Glance can take it; ImageListError otherwise (fault 38)."""
    hint = "give the image a name of its own"
    if name.strip() in ("", ".", ".."):
        raise ImageListError(f"no image name follows from {of}", kind=kind, hint=hint)
    if len(name) > MAX_NAME_CHARACTERS:
        what = f"the name {clipped(name)} has more than {MAX_NAME_CHARACTERS} characters"
        raise ImageListError(what, kind=kind, hint=hint)
    if has_control(name):
        what = f"the name {clipped(repr(name))} has control characters"
        raise ImageListError(what, kind=kind, hint=hint)
    return name


# --- what is said of the bytes --------------------------------------------------------------------


def size_bytes(text: str, what: str, kind: ErrorKind) -> int | None:
    """A size in bytes; None where the field is empty, ImageListError where it is no such number."""
    digits = text.strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_SIZE_DIGITS):
        raise ImageListError(f"{what} is {clipped(digits)!r}, no number of bytes", kind=kind)
    if int(digits) == 0:
        raise ImageListError(f"{what} is 0: no image is empty", kind=kind)
    return int(digits)


def digests(pairs: Iterable[tuple[str | None, str]], kind: ErrorKind) -> tuple[Digest, ...]:
    """Digests from (algorithm, value) pairs; pairs without a value count as missing.

    ImageListError for unknown algorithms, values that are none, and two values of one algorithm
    (fault 31): a digest that cannot be checked is not passed over in silence.
    """
    found: dict[str, Digest] = {}
    for label, value in pairs:
        if not value.strip():
            continue
        digest = _digest(label or None, value, kind)
        if found.setdefault(digest.algorithm, digest) != digest:
            what = f"two different {digest.algorithm} digests of one image"
            raise ImageListError(what, kind=ErrorKind.BAD_DIGEST)
    return tuple(found.values())


def _digest(label: str | None, value: str, kind: ErrorKind) -> Digest:
    try:
        return Digest.parse(label, value)
    except ValueError as error:
        what = f"bad {clipped(label)} digest" if label else "bad digest"
        raise ImageListError(f"{what} {clipped(value)!r}: {error}", kind=kind) from None


_COMPRESSIONS = {
    "none": Compression.NONE,
    "gz": Compression.GZIP,
    "gzip": Compression.GZIP,
    "bz2": Compression.BZIP2,
    "bzip2": Compression.BZIP2,
    "xz": Compression.XZ,
    "zst": Compression.ZSTD,
    "zstd": Compression.ZSTD,
    "zip": Compression.ZIP,
    "tar": Compression.TAR,
    "ova": Compression.TAR,
    "tgz": Compression.GZIP,
    "txz": Compression.XZ,
}


def compression(text: str) -> Compression | None:
    """How the file is compressed; None where nothing is said.

    ImageListError of kind ``bad-compression`` for methods that are not read.
    """
    name = text.strip().lower()
    if not name:
        return None
    if name not in _COMPRESSIONS:
        raise ImageListError(
            f"compression {clipped(name)!r} is not supported",
            kind=ErrorKind.BAD_COMPRESSION,
            hint="supported are gz, bz2, xz, zst, zip and tar",
        )
    return _COMPRESSIONS[name]


_FORMAT_SYNONYMS = {"img": "raw", "vpc": "vhd"}  # vpc is what qemu calls a vhd


def disk_format(text: str) -> str | None:
    """A disk format under Glance's name; None where nothing is said.

    A name that is not known here stays as it is: Glance's list is its operator's.
    """
    name = text.strip().lower()
    return _FORMAT_SYNONYMS.get(name, name) or None


def format_and_compression(text: str) -> tuple[str | None, Compression | None]:
    """Both, from a format such as ``raw.gz`` (HEPiX lists), ``raw.tar.xz`` or ``ova``."""
    head, _, last = text.strip().lower().rpartition(".")
    if last in _COMPRESSIONS:
        return disk_format("" if head == "tar" else head.removesuffix(".tar")), _COMPRESSIONS[last]
    return disk_format(text), None
