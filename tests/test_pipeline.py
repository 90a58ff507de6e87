"""The one pass: what it verifies, when it gives up, and that no unverified upload gets complete."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing.errors import (
    DownloadError,
    ErrorKind,
    GlancingError,
    InterruptedRunError,
    UnsafeImageError,
    VerificationError,
)
from glancing.model import Compression, Digest, Expected, Measured, Validators
from glancing.pipeline import (
    CHUNK_BYTES,
    PIECE_BYTES,
    Body,
    Checks,
    Hasher,
    Pipeline,
    SizedBody,
    upload_body,
)
from tests import images
from tests.images import MIB
from tests.test_decompress import zipped

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IMAGE = images.qcow2() + images.noise(200_000)
PACKERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.compress,
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: zstd.compress,
    Compression.ZIP: lambda data: zipped((zipfile.ZipInfo("disk.qcow2"), data)),
}
PACKED = {kind: pack(IMAGE) for kind, pack in PACKERS.items()}


@dataclass
class Stream:
    """A source that counts what was taken from it."""

    pieces: Iterable[bytes]
    size_bytes: int | None = None
    end_is_proven: bool = True
    validators: Validators = field(default_factory=Validators)
    read_bytes: int = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.read_bytes += len(piece)
            yield piece

    def close(self) -> None:
        """Nothing is open."""


def cut(data: bytes, step: int = 100_000) -> list[bytes]:
    return [data[begin : begin + step] for begin in range(0, len(data), step)]


def digest(algorithm: str, data: bytes) -> Digest:
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())


def wrong(algorithm: str) -> Digest:
    return digest(algorithm, b"something else")


def full(published: bytes, image: bytes = IMAGE) -> Expected:
    return Expected(
        published=(digest("sha1", published), digest("sha256", published)),
        image=(digest("sha256", image),),
        either=(digest("sha384", image),),
        published_size_bytes=len(published),
        image_size_bytes=len(image),
        disk_format="qcow2",
    )


def run(published: bytes, checks: Checks, step: int = 100_000) -> tuple[bytes, Measured]:
    pipeline = Pipeline(Stream(cut(published, step), len(published)), checks)
    pieces = list(pipeline)
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces), pipeline.measured


def failure(stream: Stream, checks: Checks) -> GlancingError:
    pipeline = Pipeline(stream, checks)
    with pytest.raises(GlancingError) as caught:
        list(pipeline)
    with pytest.raises(RuntimeError):
        _ = pipeline.measured
    return caught.value


# --- digests --------------------------------------------------------------------------------------


def own_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("glancing-")]


@given(st.lists(st.binary(max_size=5000), max_size=20))
def test_digests_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    with Hasher(["md5", "sha512"]) as hasher:
        for piece in pieces:
            hasher.update(piece)
        found = hasher.digests()
    assert found == (digest("md5", b"".join(pieces)), digest("sha512", b"".join(pieces)))


def test_digests_of_much_data_come_from_threads_that_end() -> None:
    data = images.noise(3 * MIB)
    hasher = Hasher(["md5", "sha256", "md5"])
    for piece in cut(data):
        hasher.update(piece)
    assert len(own_threads()) == 2
    assert hasher.digests() == (digest("md5", data), digest("sha256", data))
    hasher.close()
    assert own_threads() == []


def test_an_abandoned_pass_leaves_no_thread() -> None:
    pieces = iter(Pipeline(Stream(cut(images.noise(3 * MIB))), Checks(Expected())))
    for _ in range(20):
        next(pieces)
    assert own_threads()
    del pieces
    assert own_threads() == []


def test_an_unknown_algorithm_is_an_error_before_anything() -> None:
    with pytest.raises(ValueError, match="md6"):
        Hasher(["md6"])


# --- what is verified -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKED)
def test_everything_is_verified_and_measured(kind: Compression) -> None:
    published = PACKED[kind]
    image, measured = run(published, Checks(full(published), published_algorithms=("sha512",)))
    assert image == IMAGE
    side = "published file" if kind is Compression.NONE else "image"
    assert measured == Measured(
        published=tuple(digest(name, published) for name in ("sha512", "sha1", "sha256", "sha384")),
        image=tuple(digest(name, IMAGE) for name in ("md5", "sha512", "sha256", "sha384")),
        published_size_bytes=len(published),
        image_size_bytes=len(IMAGE),
        compression=kind,
        disk_format="qcow2",
        virtual_size_bytes=images.DISK_BYTES,
        matched=(
            "sha1 of the published file",
            "sha256 of the published file",
            "sha256 of the image",
            f"sha384 of the {side}",
        ),
    )


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(PACKED)), st.integers(50, 600_000))
def test_any_pieces_give_the_same_image(kind: Compression, step: int) -> None:
    published = PACKED[kind]
    assert run(published, Checks(full(published)), step)[0] == IMAGE


@pytest.mark.parametrize("kind", PACKED)
def test_an_either_digest_may_be_of_the_published_file(kind: Compression) -> None:
    expected = Expected(either=(digest("sha256", PACKED[kind]),))
    assert run(PACKED[kind], Checks(expected))[1].matched == ("sha256 of the published file",)


GOOD = full(PACKED[Compression.GZIP])
WRONG = [
    (replace(GOOD, published=(wrong("sha1"),)), ErrorKind.WRONG_DIGEST, "sha1 of the published"),
    (replace(GOOD, image=(*GOOD.image, wrong("md5"))), ErrorKind.WRONG_DIGEST, "md5 of the image"),
    (replace(GOOD, either=(wrong("sha512"),)), ErrorKind.WRONG_DIGEST, "published file or the im"),
    (replace(GOOD, image_size_bytes=len(IMAGE) + 1), ErrorKind.WRONG_SIZE, "size of the image"),
    (replace(GOOD, image_size_bytes=len(IMAGE) - 1), ErrorKind.WRONG_SIZE, "size of the image"),
    (replace(GOOD, published_size_bytes=5), ErrorKind.WRONG_SIZE, "size of the published file"),
    (replace(GOOD, published_size_bytes=10**9), ErrorKind.WRONG_SIZE, "size of the published file"),
]


@pytest.mark.parametrize(("expected", "kind", "words"), WRONG)
@pytest.mark.parametrize("announced", [True, False])
def test_wrong_digests_and_sizes_fail(
    expected: Expected, kind: ErrorKind, words: str, announced: bool
) -> None:
    """Fault 29: all of several digests must match."""
    packed = PACKED[Compression.GZIP]
    error = failure(Stream(cut(packed), len(packed) if announced else None), Checks(expected))
    assert isinstance(error, VerificationError)
    assert error.kind is kind
    assert words in error.message


def test_a_wrong_digest_is_told_with_both_values() -> None:
    error = failure(Stream([IMAGE]), Checks(Expected(image=(wrong("sha256"),))))
    assert wrong("sha256").value in error.message
    assert digest("sha256", IMAGE).value in error.message


@pytest.mark.parametrize(("expected", "kind", "words"), WRONG)
def test_force_notes_wrong_digests_and_sizes(
    expected: Expected, kind: ErrorKind, words: str
) -> None:
    measured = run(PACKED[Compression.GZIP], Checks(expected, force=True))[1]
    assert kind in (ErrorKind.WRONG_DIGEST, ErrorKind.WRONG_SIZE)
    assert len(measured.mismatched) == 1
    assert words in measured.mismatched[0]


def test_force_does_not_touch_formats() -> None:
    checks = Checks(Expected(disk_format="raw"), force=True)
    assert failure(Stream([IMAGE]), checks).kind is ErrorKind.FORMAT_MISMATCH
    backed = images.qcow2(backing_file=True)
    checks = Checks(Expected(), force=True, operator_disk_format="detected")
    assert failure(Stream([backed]), checks).kind is ErrorKind.UNSAFE_FORMAT


def test_no_checksum_ignores_digests_only() -> None:
    expected = Expected(published=(wrong("md5"),), image_size_bytes=len(IMAGE))
    measured = run(IMAGE, Checks(expected, verify_digests=False))[1]
    assert (measured.matched, measured.mismatched) == ((), ())
    expected = replace(expected, image_size_bytes=4)
    assert failure(Stream([IMAGE]), Checks(expected, verify_digests=False)).kind is (
        ErrorKind.WRONG_SIZE
    )


@pytest.mark.parametrize("flipped", [0.001, 0.5, 0.999])
def test_one_flipped_bit_fails(flipped: float) -> None:
    """Fault 29."""
    changed = bytearray(IMAGE)
    changed[int(len(changed) * flipped)] ^= 1
    assert failure(Stream(cut(bytes(changed))), Checks(full(IMAGE))).kind is ErrorKind.WRONG_DIGEST


@pytest.mark.parametrize(
    ("declared", "real", "words"),
    [
        (Compression.NONE, Compression.GZIP, "was to be uncompressed and is gz data"),
        (Compression.GZIP, Compression.NONE, "was to be gz data and is uncompressed"),
        (Compression.XZ, Compression.ZSTD, "was to be xz data and is zstd data"),
    ],
)
def test_a_declared_compression_must_be_that_of_the_bytes(
    declared: Compression, real: Compression, words: str
) -> None:
    error = failure(Stream([PACKED[real]]), Checks(Expected(compression=declared)))
    assert error.kind is ErrorKind.BAD_COMPRESSION
    assert words in error.message


@pytest.mark.parametrize("kind", PACKED)
def test_a_declared_compression_may_be_right(kind: Compression) -> None:
    assert run(PACKED[kind], Checks(Expected(compression=kind)))[1].compression is kind


def test_an_image_compressed_twice_is_refused() -> None:
    error = failure(Stream([gzip.compress(lzma.compress(IMAGE))]), Checks(Expected()))
    assert isinstance(error, UnsafeImageError)
    assert "compressed twice" in error.message


@pytest.mark.parametrize("pieces", [[], [b""], [gzip.compress(b"")]])
def test_nothing_is_no_image(pieces: list[bytes]) -> None:
    assert failure(Stream(pieces), Checks(Expected())).kind is ErrorKind.EMPTY
    assert failure(Stream(pieces), Checks(full(IMAGE))).kind is ErrorKind.EMPTY


# --- ends and limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "verify_digests"),
    [
        (Expected(either=(digest("md5", IMAGE),)), True),
        (Expected(published_size_bytes=len(IMAGE)), True),
        (Expected(image_size_bytes=len(IMAGE)), True),
        (Expected(), False),
    ],
)
def test_an_unproven_end_needs_a_digest_or_a_size(expected: Expected, verify_digests: bool) -> None:
    """Fault 2."""
    checks = Checks(expected, verify_digests=verify_digests)
    assert b"".join(Pipeline(Stream([IMAGE], end_is_proven=False), checks)) == IMAGE


def test_an_unproven_end_without_anything_is_refused_unread() -> None:
    """Fault 2."""
    stream = Stream([IMAGE], end_is_proven=False)
    error = failure(stream, Checks(Expected()))
    assert isinstance(error, DownloadError)
    assert (error.kind, stream.read_bytes) == (ErrorKind.UNVERIFIABLE, 0)


def test_a_source_that_gives_less_than_announced_is_incomplete() -> None:
    assert failure(Stream([IMAGE], len(IMAGE) + 1), Checks(Expected())).kind is ErrorKind.INCOMPLETE


def endless() -> Iterator[bytes]:
    while True:
        yield images.noise(64 * 1024)


def endless_gz() -> Iterator[bytes]:
    member = gzip.compress(images.noise(64 * 1024))
    while True:
        yield member


CAP = 5 * MIB


@pytest.mark.parametrize(
    "checks",
    [
        Checks(Expected(published_size_bytes=CAP)),
        Checks(Expected(image_size_bytes=CAP)),
        Checks(Expected(), max_size_bytes=CAP),
        Checks(Expected(image_size_bytes=1), max_size_bytes=CAP, force=True),
    ],
)
@pytest.mark.parametrize("source", [endless, endless_gz])
def test_an_endless_body_is_given_up(checks: Checks, source: Callable[[], Iterator[bytes]]) -> None:
    """Fault 9."""
    stream = Stream(source())
    kinds = (ErrorKind.WRONG_SIZE, ErrorKind.TOO_LARGE)
    assert failure(stream, checks).kind in kinds
    assert stream.read_bytes <= CAP + 2 * 64 * 1024


@pytest.mark.parametrize(
    ("checks", "kind"),
    [
        (Checks(Expected(published_size_bytes=4711)), ErrorKind.WRONG_SIZE),
        (Checks(Expected(), max_size_bytes=4711), ErrorKind.TOO_LARGE),
    ],
)
def test_a_wrong_announcement_fails_unread(checks: Checks, kind: ErrorKind) -> None:
    stream = Stream([IMAGE], len(IMAGE))
    assert failure(stream, checks).kind is kind
    assert stream.read_bytes == 0


@pytest.mark.parametrize("size_bytes", [4711, 10**9])
def test_a_wrong_announcement_of_the_image_fails_at_the_first_piece(size_bytes: int) -> None:
    stream = Stream(cut(IMAGE), len(IMAGE))
    assert (
        failure(stream, Checks(Expected(image_size_bytes=size_bytes))).kind is ErrorKind.WRONG_SIZE
    )
    assert stream.read_bytes == 100_000


def test_a_bomb_is_given_up_at_the_published_size() -> None:
    """Fault 19."""
    bomb = gzip.compress(bytes(64 * MIB))
    pieces = iter(Pipeline(Stream([bomb]), Checks(Expected(image_size_bytes=8 * MIB))))
    given_bytes: list[int] = []
    with pytest.raises(VerificationError):
        given_bytes.extend(map(len, pieces))
    assert sum(given_bytes) <= 8 * MIB


def test_a_source_is_read_once() -> None:
    pipeline = Pipeline(Stream([IMAGE]), Checks(Expected()))
    list(pipeline)
    with pytest.raises(RuntimeError):
        iter(pipeline)


# --- what is known in advance ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "announced", "checks", "size_bytes"),
    [
        (Compression.NONE, True, Checks(Expected()), len(IMAGE)),
        (Compression.NONE, False, Checks(Expected()), None),
        (Compression.NONE, False, Checks(Expected(image_size_bytes=4711)), 4711),
        (Compression.NONE, True, Checks(Expected(image_size_bytes=4711), force=True), len(IMAGE)),
        (Compression.XZ, True, Checks(Expected()), None),
        (Compression.XZ, True, Checks(Expected(image_size_bytes=4711)), 4711),
        (Compression.XZ, True, Checks(Expected(image_size_bytes=4711), force=True), None),
    ],
)
def test_the_size_of_the_image_in_advance(
    kind: Compression, announced: bool, checks: Checks, size_bytes: int | None
) -> None:
    packed = PACKED[kind]
    pipeline = Pipeline(Stream(cut(packed), len(packed) if announced else None), checks)
    pipeline.start()
    pipeline.start()
    assert pipeline.image_size_bytes == size_bytes


@pytest.mark.parametrize("image", [IMAGE, images.vmdk("streamOptimized"), images.raw()])
def test_the_format_is_known_before_the_end(image: bytes) -> None:
    stream = Stream(cut(image))
    pipeline = Pipeline(stream, Checks(Expected()))
    pipeline.start()
    assert pipeline.likely_format is None
    pieces = iter(pipeline)
    while pipeline.likely_format is None:
        next(pieces)
    likely, read_bytes = pipeline.likely_format, stream.read_bytes
    list(pieces)
    assert read_bytes < len(image)
    assert pipeline.likely_format == pipeline.measured.disk_format == likely


def test_a_start_says_what_is_wrong_already() -> None:
    stream = Stream(cut(PACKED[Compression.XZ]))
    with pytest.raises(VerificationError):
        Pipeline(stream, Checks(Expected(compression=Compression.NONE))).start()
    assert stream.read_bytes == len(cut(PACKED[Compression.XZ])[0])


# --- the body of an upload ------------------------------------------------------------------------

RESERVE = 64 * 1024


@dataclass
class Stalling:
    """Pieces that stop before the last ones until they are let go."""

    first: list[bytes]
    rest: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    go_on: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.first
        self.go_on.wait()
        if self.error:
            raise self.error
        yield from self.rest


def taken(body: Body) -> bytearray:
    """What a body gives until it fails; the error is the body's own."""
    given_bytes = bytearray()
    try:
        for piece in body:
            given_bytes += piece
    except GlancingError as error:
        if error is not body.error:
            raise
    body.close()
    return given_bytes


@pytest.mark.parametrize("size_bytes", [None, len(IMAGE)])
@pytest.mark.parametrize("reserve_bytes", [1, 1000, RESERVE, 4 * MIB])
def test_a_body_gives_everything(size_bytes: int | None, reserve_bytes: int) -> None:
    body = upload_body(cut(IMAGE), size_bytes, reserve_bytes=reserve_bytes)
    body.wait_ready()
    pieces = list(body)
    assert b"".join(pieces) == IMAGE
    assert max(map(len, pieces)) <= (CHUNK_BYTES if size_bytes is None else PIECE_BYTES)
    assert body.error is None
    body.close()
    assert own_threads() == []


def test_only_a_body_of_known_size_has_a_length() -> None:
    assert len(SizedBody([], 4711)) == 4711
    assert isinstance(upload_body([], 4711), SizedBody)
    assert not hasattr(upload_body([]), "__len__")


def test_a_body_is_sent_once() -> None:
    """Fault 39: what is sent again after a refusal would be the rest."""
    body = upload_body([b"abc"])
    next(iter(body))
    with pytest.raises(RuntimeError, match="once"):
        iter(body)
    body.close()


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from([Compression.NONE, Compression.GZIP, Compression.ZSTD, Compression.ZIP]),
    position=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    sized=st.booleans(),
)
def test_no_corrupted_image_is_ever_sent_whole(
    kind: Compression, position: float, bit: int, sized: bool
) -> None:
    changed = bytearray(PACKED[kind])
    changed[int(position * len(changed))] ^= 1 << bit
    pipeline = Pipeline(Stream(cut(bytes(changed), 10_000)), Checks(full(PACKED[kind])))
    body = upload_body(pipeline, len(IMAGE) if sized else None, reserve_bytes=10_000)
    given_bytes = taken(body)
    assert isinstance(body.error, GlancingError)
    assert len(given_bytes) < len(IMAGE)


def test_a_small_bad_image_is_known_before_anything_is_sent() -> None:
    checks = Checks(Expected(image=(wrong("sha256"),)))
    body = upload_body(Pipeline(Stream([IMAGE]), checks))
    with pytest.raises(VerificationError):
        body.wait_ready()
    with pytest.raises(VerificationError):
        next(iter(body))
    body.close()


def test_a_body_is_ready_when_its_reserve_is_full() -> None:
    source = Stalling([bytes(RESERVE)])
    body = upload_body(source, reserve_bytes=RESERVE)
    body.wait_ready()
    source.go_on.set()
    assert len(b"".join(body)) == RESERVE


def test_while_the_source_stalls_the_reserve_drips_but_never_its_last_byte() -> None:
    source = Stalling([bytes(1000)], [b"end"])
    body = upload_body(source, reserve_bytes=1000, drip_interval_s=0.001, drip_bytes=64)
    pieces = iter(body)
    drips = [next(pieces) for _ in range(16)]
    assert [len(each) for each in drips] == [64] * 15 + [39]  # 999 of 1000
    waiter = threading.Thread(target=drips.extend, args=(pieces,))
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive() and len(drips) == 16
    source.go_on.set()
    waiter.join()
    assert b"".join(drips) == bytes(1000) + b"end"


def test_a_source_that_trickles_does_not_keep_the_drip_from_coming() -> None:
    """Pieces that come while waiting do not start the waiting anew."""
    dripped, stop = threading.Event(), threading.Event()

    def trickle() -> Iterator[bytes]:
        yield bytes(100_000)
        dripped.wait()
        while not stop.wait(0.005):
            yield b"x"

    body = upload_body(trickle(), reserve_bytes=100_000, drip_interval_s=0.05, drip_bytes=10_000)
    pieces = iter(body)
    assert len(next(pieces)) == 10_000
    dripped.set()
    assert [len(next(pieces)) for _ in range(3)] == [10_000] * 3
    stop.set()
    body.close()


def test_a_refilled_reserve_is_held_back_again() -> None:
    source = Stalling([bytes(1000)], [bytes(1500)])
    passed = threading.Event()

    def gate() -> None:
        passed.wait()

    body = upload_body(source, gate=gate, reserve_bytes=1000, drip_interval_s=0.01)
    pieces = iter(body)
    dripped = len(next(pieces))
    source.go_on.set()
    while dripped < 1500:
        dripped += len(next(pieces))
    assert dripped < 2500
    passed.set()
    assert dripped + len(b"".join(pieces)) == 2500


def test_the_gate_is_asked_after_verification_and_may_withhold_the_tail() -> None:
    equal = VerificationError("found equal")
    pipeline = Pipeline(Stream(cut(IMAGE)), Checks(full(IMAGE)))
    seen: list[Measured] = []

    def gate() -> None:
        seen.append(pipeline.measured)
        raise equal

    body = upload_body(pipeline, len(IMAGE), gate=gate, reserve_bytes=1000)
    assert len(taken(body)) < len(IMAGE)
    assert body.error is equal
    assert seen[0].image_size_bytes == len(IMAGE)


def test_an_error_of_the_source_breaks_the_upload_off() -> None:
    lost = DownloadError("connection lost")
    source = Stalling([bytes(5000)], error=lost)
    source.go_on.set()
    body = upload_body(source, reserve_bytes=1000)
    assert len(taken(body)) < 5000
    assert body.error is lost


@pytest.mark.parametrize("size_bytes", [4999, 5001, 1])
def test_an_image_of_another_size_than_announced_is_never_sent_whole(size_bytes: int) -> None:
    body = upload_body(cut(bytes(5000), 500), size_bytes, reserve_bytes=1000)
    assert len(taken(body)) < min(size_bytes, 5000)
    assert isinstance(body.error, VerificationError)
    assert body.error.kind is ErrorKind.WRONG_SIZE


def test_an_empty_body_is_an_error() -> None:
    body = upload_body([])
    with pytest.raises(VerificationError):
        body.wait_ready()
    body.close()


@pytest.mark.parametrize("ready", [True, False])
def test_a_run_told_to_stop_breaks_the_upload_off(ready: bool) -> None:
    stop = threading.Event()
    source = Stalling([bytes(2000 if ready else 10)])
    body = upload_body(source, reserve_bytes=1000, stop=stop, on_close=source.go_on.set)
    pieces = iter(body)
    if ready:
        assert next(pieces)
    threading.Timer(0.01, stop.set).start()
    with pytest.raises(InterruptedRunError):
        list(pieces)
    body.close()
    assert own_threads() == []


def test_a_stop_while_the_sender_is_stuck_ends_the_thread() -> None:
    stop = threading.Event()
    body = upload_body(endless(), reserve_bytes=1000, stop=stop)
    next(iter(body))
    stop.set()
    body.close()
    assert own_threads() == []
    assert isinstance(body.error, InterruptedRunError)


def test_closing_ends_a_source_that_blocks_and_its_hashing() -> None:
    source = Stalling(cut(images.noise(2 * MIB)))
    pipeline = Pipeline(Stream(source), Checks(Expected()))
    body = upload_body(pipeline, reserve_bytes=MIB, on_close=source.go_on.set)
    body.wait_ready()
    assert len(own_threads()) > 1
    body.close()
    body.close()
    assert own_threads() == []
    with pytest.raises(InterruptedRunError):
        next(iter(body))


def test_a_body_never_holds_much_more_than_twice_its_reserve() -> None:
    too_far = threading.Event()

    def source() -> Iterator[bytes]:
        yield from [bytes(64 * 1024)] * 32
        yield b"the one that waits for room"
        too_far.set()
        yield b"end"

    body = upload_body(source(), reserve_bytes=MIB)
    body.wait_ready()
    assert not too_far.wait(0.2)
    assert b"".join(body).endswith(b"end")
    assert too_far.is_set()
