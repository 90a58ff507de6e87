"""The one pass: read, hash, decompress, hash, inspect, hold back the tail until all is verified.

``Pipeline`` turns the bytes of a source into the bytes of an image and ends normally only when
every expectation holds. ``Body`` is what an upload sends: it always holds back a reserve, which
keeps the request alive while the source stalls, and gives its last byte away only after the
pipeline ended normally. So a request whose image is not what was published never gets complete.

Memory: a body buffers twice its reserve, a hasher some batches of 256 KiB; with the defaults the
whole stays below 16 MiB, whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from glancing.decompress import HEAD_BYTES, OutputLimit, decompress, sniff
from glancing.errors import DownloadError, ErrorKind, VerificationError
from glancing.formats import Inspector
from glancing.model import Compression, Digest, Expected, Measured, SourceStream
from glancing.pipeline._body import CHUNK_BYTES, PIECE_BYTES, Body, SizedBody, upload_body
from glancing.pipeline._hasher import Hasher

__all__ = [
    "CHUNK_BYTES",
    "PIECE_BYTES",
    "Body",
    "Checks",
    "Hasher",
    "Pipeline",
    "SizedBody",
    "upload_body",
]


@dataclass(frozen=True, slots=True)
class Checks:
    """What must hold of the bytes of one image, and what is to be found out besides.

    ``image_algorithms`` and ``published_algorithms`` are computed in any case, beside the expected
    ones. ``verify_digests`` False ignores expected digests and the demand that something proves
    the end; sizes and formats are checked all the same. ``force`` notes wrong digests and sizes
    instead of raising, and never touches the checks of the format. ``operator_disk_format`` is
    the operator's word on the format, ``detected`` included. ``max_size_bytes`` bounds both the
    published file and the image.
    """

    expected: Expected
    image_algorithms: tuple[str, ...] = ("md5", "sha512")
    published_algorithms: tuple[str, ...] = ()
    force: bool = False
    verify_digests: bool = True
    operator_disk_format: str | None = None
    max_size_bytes: int = 1024**4


class Pipeline:
    """One pass over a source: iterating gives the image in pieces of at most ``PIECE_BYTES``.

    1. refuse a source whose end nothing would prove, or whose announced size is wrong
    2. name the compression by the first bytes, and refuse another one than was declared
    3. for every piece: count and hash as published, decompress, count and hash as image, inspect
    4. at the end: sizes, digests, format; only then the iteration ends normally

    ``start`` does the first two and may be called before, by who needs to know the image's size
    in advance. ``measured`` is there once the iteration has ended. Raises VerificationError,
    UnsafeImageError, DownloadError (also ``unverifiable``), and whatever the stream raises.
    """

    def __init__(self, stream: SourceStream, checks: Checks) -> None:
        self._stream = stream
        self._checks = checks
        self._begun = False
        self._pieces: Iterator[bytes] | None = None
        self._compression = Compression.NONE
        self._measured: Measured | None = None
        expected = checks.expected if checks.verify_digests else _without_digests(checks.expected)
        self._expected = expected
        self._published = _Side("published file", checks, expected.published_size_bytes)
        self._image = _Side("image", checks, expected.image_size_bytes)
        self._inspector = Inspector(expected.disk_format, checks.operator_disk_format)
        either = tuple(each.algorithm for each in expected.either)
        self._published_algorithms = (
            *checks.published_algorithms,
            *(each.algorithm for each in expected.published),
            *either,
        )
        self._image_algorithms = (
            *checks.image_algorithms,
            *(each.algorithm for each in expected.image),
            *either,
        )

    @property
    def measured(self) -> Measured:
        """What was found out; RuntimeError while the pass has not ended well."""
        if self._measured is None:
            raise RuntimeError("the image has not been read and verified to its end")
        return self._measured

    def __iter__(self) -> Generator[bytes]:
        if self._begun:
            raise RuntimeError("a source is read once")
        self._begun = True
        return self._run()

    @property
    def image_size_bytes(self) -> int | None:
        """How large the image is going to be, as far as that is certain after ``start``.

        A source's own announcement holds for an image that is not compressed; what a list says
        does not when the operator forces the import.
        """
        if self._compression is Compression.NONE and self._stream.size_bytes is not None:
            return self._stream.size_bytes
        return None if self._checks.force else self._expected.image_size_bytes

    @property
    def likely_format(self) -> str | None:
        """The disk format by the bytes read so far; None while they do not tell."""
        if self._measured is not None:
            return self._measured.disk_format
        return self._inspector.likely_format

    def start(self) -> None:
        """Read the first bytes; raises what is wrong already. Safe more than once."""
        if self._pieces is not None:
            return
        self._check_announced()
        head, self._pieces = _peek(self._published.limited(self._stream))
        self._compression = self._compression_of(head)
        if self._compression is Compression.NONE:
            self._check_announced_image()

    def _run(self) -> Generator[bytes]:
        self.start()
        assert self._pieces is not None  # noqa: S101 - start() has just seen to it
        plain = self._compression is Compression.NONE
        with closing((self._plain if plain else self._unpacked)(self._pieces)) as image_pieces:
            for piece in image_pieces:
                self._inspector.feed(piece)
                yield piece
        self._conclude()

    def _plain(self, pieces: Iterator[bytes]) -> Generator[bytes]:
        """Published file and image are the same bytes: nothing is computed twice."""
        with Hasher(self._published_algorithms + self._image_algorithms) as hasher:
            yield from _hashed(self._image.limited(pieces), hasher)
            digests = hasher.digests()
        self._published.digests = _pick(digests, self._published_algorithms)
        self._image.digests = _pick(digests, self._image_algorithms)

    def _unpacked(self, pieces: Iterator[bytes]) -> Generator[bytes]:
        with Hasher(self._published_algorithms) as outer, Hasher(self._image_algorithms) as inner:
            hashed = _hashed(pieces, outer)
            unpacked = decompress(hashed, self._compression, self._output_limit())
            yield from _hashed(self._image.limited(unpacked), inner)
            self._published.digests = outer.digests()
            self._image.digests = inner.digests()

    # checks before and while reading

    def _check_announced(self) -> None:
        """Refuse what is wrong before a byte was read."""
        expected, announced = self._expected, self._stream.size_bytes
        sizes = (expected.published_size_bytes, expected.image_size_bytes)
        proven = self._stream.end_is_proven or expected.digests or any(s is not None for s in sizes)
        if self._checks.verify_digests and not proven:
            raise _unverifiable()
        if announced is None:
            return
        if announced > self._checks.max_size_bytes:
            raise _too_large("published file", self._checks.max_size_bytes)
        self._check_size("published file", expected.published_size_bytes, announced)

    def _check_announced_image(self) -> None:
        if self._stream.size_bytes is not None:
            self._check_size("image", self._expected.image_size_bytes, self._stream.size_bytes)

    def _check_size(self, what: str, expected_bytes: int | None, announced_bytes: int) -> None:
        if expected_bytes in (None, announced_bytes) or self._checks.force:
            return
        raise VerificationError(
            f"the size of the {what} is wrong: expected {expected_bytes} bytes, "
            f"the source announces {announced_bytes}",
            kind=ErrorKind.WRONG_SIZE,
        )

    def _compression_of(self, head: bytes) -> Compression:
        if not head:
            raise VerificationError("the published file is empty", kind=ErrorKind.EMPTY)
        declared, found = self._expected.compression, sniff(head)
        if declared in (None, found):
            return found
        raise VerificationError(
            f"the published file was to be {_named(declared)} and is {_named(found)}",
            kind=ErrorKind.BAD_COMPRESSION,
        )

    def _output_limit(self) -> OutputLimit:
        size_is_known = self._expected.image_size_bytes is not None and not self._checks.force
        if size_is_known:
            return OutputLimit(self._checks.max_size_bytes, max_ratio=None)
        return OutputLimit(self._checks.max_size_bytes)

    # checks at the end

    def _conclude(self) -> None:
        published, image = self._published, self._image
        self._check_complete(published.size_bytes)
        if image.size_bytes == 0:
            raise VerificationError("the image is empty", kind=ErrorKind.EMPTY)
        verdict = self._verdict()
        if not self._checks.force:
            verdict.enforce()
        disk_format, virtual_size_bytes = self._inspector.finish()
        self._measured = Measured(
            published=published.digests,
            image=image.digests,
            published_size_bytes=published.size_bytes,
            image_size_bytes=image.size_bytes,
            compression=self._compression,
            disk_format=disk_format,
            virtual_size_bytes=virtual_size_bytes,
            matched=tuple(verdict.matched),
            mismatched=tuple(verdict.mismatched),
        )

    def _check_complete(self, read_bytes: int) -> None:
        announced = self._stream.size_bytes
        if announced not in (None, read_bytes):
            raise DownloadError(
                f"the source announced {announced} bytes and gave {read_bytes}",
                kind=ErrorKind.INCOMPLETE,
                transient=True,
            )

    def _verdict(self) -> _Verdict:
        published, image, verdict = self._published, self._image, _Verdict()
        for side in (published, image):
            verdict.judge_size(side)
        verdict.judge(self._expected.published, published)
        verdict.judge(self._expected.image, image)
        verdict.judge(self._expected.either, published, image)
        return verdict


class _Side:
    """The bytes on one side of the decompressor: their count, their digests, their limits."""

    def __init__(self, name: str, checks: Checks, expected_size_bytes: int | None) -> None:
        self.name = name
        self.expected_size_bytes = expected_size_bytes
        self.size_bytes = 0
        self.digests: tuple[Digest, ...] = ()
        self._max_size_bytes = checks.max_size_bytes
        self._enforced_bytes = None if checks.force else expected_size_bytes

    def limited(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Count and hand on pieces of at most ``PIECE_BYTES``, and stop at the first too many."""
        for piece in pieces:
            self.size_bytes += len(piece)
            self._check()
            if len(piece) <= PIECE_BYTES:
                yield piece
            else:
                yield from _sliced(piece)

    def _check(self) -> None:
        if self.size_bytes > self._max_size_bytes:
            raise _too_large(self.name, self._max_size_bytes)
        if self._enforced_bytes is not None and self.size_bytes > self._enforced_bytes:
            raise VerificationError(
                f"the size of the {self.name} is wrong: "
                f"expected {self._enforced_bytes} bytes, and there are more",
                kind=ErrorKind.WRONG_SIZE,
            )


class _Verdict:
    """What held, what did not, and the first failure."""

    def __init__(self) -> None:
        self.matched: list[str] = []
        self.mismatched: list[str] = []
        self._failures: list[VerificationError] = []

    def judge_size(self, side: _Side) -> None:
        expected_bytes = side.expected_size_bytes
        if expected_bytes in (None, side.size_bytes):
            return
        sentence = (
            f"size of the {side.name}: expected {expected_bytes} bytes, got {side.size_bytes}"
        )
        self._fail(sentence, ErrorKind.WRONG_SIZE)

    def judge(self, wanted: Iterable[Digest], *sides: _Side) -> None:
        """Every digest must be that of one of the sides."""
        for digest in wanted:
            match = next((side for side in sides if digest in side.digests), None)
            if match:
                self.matched.append(f"{digest.algorithm} of the {match.name}")
                continue
            names = " or the ".join(side.name for side in sides)
            computed = " and ".join(_value(side, digest.algorithm) for side in sides)
            self._fail(
                f"{digest.algorithm} of the {names}: expected {digest.value}, computed {computed}",
                ErrorKind.WRONG_DIGEST,
            )

    def enforce(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _fail(self, sentence: str, kind: ErrorKind) -> None:
        self.mismatched.append(sentence)
        self._failures.append(VerificationError(f"wrong {sentence}", kind=kind, hint=_WAY_OUT))


_WAY_OUT = "this is not what was published: try later, ask the publisher, or accept it by --force"


def _value(side: _Side, algorithm: str) -> str:
    return next(each.value for each in side.digests if each.algorithm == algorithm)


def _without_digests(expected: Expected) -> Expected:
    return Expected(
        published_size_bytes=expected.published_size_bytes,
        image_size_bytes=expected.image_size_bytes,
        compression=expected.compression,
        disk_format=expected.disk_format,
    )


def _pick(digests: tuple[Digest, ...], algorithms: Iterable[str]) -> tuple[Digest, ...]:
    found = {each.algorithm: each for each in digests}
    return tuple(found[name] for name in dict.fromkeys(algorithms))


def _hashed(pieces: Iterable[bytes], hasher: Hasher) -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece


def _sliced(piece: bytes) -> Iterator[bytes]:
    view = memoryview(piece)
    for begin in range(0, len(view), PIECE_BYTES):
        yield bytes(view[begin : begin + PIECE_BYTES])


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all pieces with the first ones again."""
    taken: list[bytes] = []
    while sum(map(len, taken)) < HEAD_BYTES and (piece := next(pieces, None)) is not None:
        taken.append(piece)
    return b"".join(taken), chain(taken, pieces)


def _named(compression: Compression | None) -> str:
    return "uncompressed" if compression is Compression.NONE else f"{compression} data"


def _too_large(what: str, max_size_bytes: int) -> VerificationError:
    return VerificationError(
        f"the {what} is larger than the allowed {max_size_bytes} bytes",
        kind=ErrorKind.TOO_LARGE,
        hint="--max-size sets what is allowed",
    )


def _unverifiable() -> DownloadError:
    return DownloadError(
        "nothing would tell if the file were cut off: the source does not say its length, "
        "and there is neither a digest nor a size to compare with",
        kind=ErrorKind.UNVERIFIABLE,
        hint="give a digest with --sums, or accept the risk with --no-checksum",
    )
