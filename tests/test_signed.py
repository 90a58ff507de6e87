"""Which documents have to be signed, and where their signatures are looked for.

Fault 33: what comes unsigned over plain HTTP proves little, a signature makes up for it.
Fault 35: with a keyring, a checksum file that is not signed by it counts for nothing.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pysequoia import SignatureMode, Tsk, sign

from glancing.catalogue import Catalogue, ImportRequest
from glancing.errors import ConfigError, DownloadError, ErrorKind, SignatureError
from glancing.model import NO_TRUST, Digest, LocalPath, Location, Trust, Url
from glancing.signatures import Verifier, read_keyring
from glancing.signed import SignedDocuments
from tests.fakes import FakeClock, FakeSource, FakeSources, ListEvents
from tests.imagelist_documents import hepix, signed

IMAGE = "http://images.example.org/a.img"
SUMS = Url("http://images.example.org/SHA256SUMS?token=secret")
VALUE = hashlib.sha256(b"an image").hexdigest()
TEXT = f"{VALUE}  a.img\n".encode()
KEY, STRANGER = Tsk.generate("publisher"), Tsk.generate("stranger")


class World:
    """A catalogue with a keyring, and what lies at its addresses."""

    def __init__(self, trust: Trust = NO_TRUST) -> None:
        clock = FakeClock(datetime.now(UTC))
        ring = read_keyring(bytes(KEY.extract_certificate()), "ring")
        self.sources, self.events = FakeSources(), ListEvents()
        documents = SignedDocuments(self.events, Verifier(clock, keyring=ring), trust)
        self.catalogue = Catalogue(
            self.sources, self.events, clock, folder=Path("/lists"), signed=documents
        )

    def put(self, location: Location, data: bytes | Exception) -> None:
        found = FakeSource(refuse=data) if isinstance(data, Exception) else data
        self.sources.put(location, found)

    def digests(self, sums: Location = SUMS) -> tuple[Digest, ...]:
        request = ImportRequest(IMAGE, sums_files=(sums,))
        found = self.catalogue.read_request(request).expected
        assert not found.over_http
        return found.published


@pytest.fixture
def world() -> World:
    return World()


def clear_signed(key: Tsk, text: bytes = TEXT) -> bytes:
    return sign(key.signer(), text, mode=SignatureMode.CLEAR)


def beside(key: Tsk, text: bytes = TEXT) -> bytes:
    return sign(key.signer(), text, mode=SignatureMode.DETACHED)


def test_a_clear_signed_checksum_file(world: World) -> None:
    world.put(SUMS, clear_signed(KEY))
    assert world.digests() == (Digest("sha256", VALUE),)
    [event] = world.events.named("list.signature_verified")
    assert event.fields["list"] == SUMS.public and event.fields["algorithm"] == "sha512"


@pytest.mark.parametrize("suffix", [".gpg", ".sign", ".asc"])
def test_a_signature_beside_a_checksum_file(world: World, suffix: str) -> None:
    world.put(SUMS, TEXT)
    world.put(Url(f"http://images.example.org/SHA256SUMS{suffix}?token=secret"), beside(KEY))
    assert world.digests() == (Digest("sha256", VALUE),)


def test_a_local_checksum_file(world: World, tmp_path: Path) -> None:
    sums = LocalPath(tmp_path / "SHA256SUMS")
    world.put(sums, TEXT)
    world.put(LocalPath(tmp_path / "SHA256SUMS.sign"), beside(KEY))
    assert world.digests(sums) == (Digest("sha256", VALUE),)


@pytest.mark.parametrize(
    ("check", "content", "signature"),
    [
        ("unsigned", TEXT, None),
        ("signer", TEXT, beside(STRANGER)),
        ("signature", TEXT, beside(KEY, b"another file")),
        ("framing", TEXT, b"<html>not found</html>"),
        ("signer", clear_signed(STRANGER), None),
        ("framing", TEXT + clear_signed(KEY), None),
        ("signature", clear_signed(KEY, b"0  b.img\n").replace(b"b.img", b"a.img"), beside(KEY)),
    ],
    ids=str.split("unsigned signer-beside other-bytes web-page signer-inside text-around changed"),
)
def test_refused_checksum_files(
    world: World, check: str, content: bytes, signature: bytes | None
) -> None:
    world.put(SUMS, content)
    if signature is not None:
        world.put(Url("http://images.example.org/SHA256SUMS.gpg?token=secret"), signature)
    with pytest.raises(SignatureError) as refusal:
        world.digests()
    assert refusal.value.check == check
    [event] = world.events.named("list.signature_refused")
    assert event.fields["check"] == check


def test_only_an_absent_signature_is_passed_over(world: World) -> None:
    world.put(SUMS, TEXT)
    stalled = DownloadError("stalled", kind=ErrorKind.STALLED)
    world.put(Url("http://images.example.org/SHA256SUMS.gpg?token=secret"), stalled)
    world.put(Url("http://images.example.org/SHA256SUMS.sign?token=secret"), beside(KEY))
    with pytest.raises(DownloadError, match="stalled"):
        world.digests()


def test_a_line_of_a_list_whose_checksum_file_is_not_signed_is_a_failed_row(world: World) -> None:
    vmlist = LocalPath(Path("/lists/vmlist"))
    world.put(vmlist, f"{IMAGE} sums={SUMS.full}\n{IMAGE}2 sums={'0' * 64}\n".encode())
    world.put(SUMS, TEXT)
    found = world.catalogue.read_lists([vmlist])
    assert [spec.descriptor for spec in found.specs] == [f"{IMAGE}2"]
    [row] = found.failures
    assert row.error is not None and row.error.kind == "bad-signature"


def test_a_clear_signed_list_vouches_for_no_list_that_it_includes(world: World) -> None:
    outer, inner = Url("http://lists.example.org/outer"), Url("http://lists.example.org/inner")
    world.put(outer, clear_signed(KEY, f"{IMAGE} sums={VALUE}\nlist={inner.full}\n".encode()))
    world.put(inner, hepix(**{"dc:date:expires": ""}))
    found = world.catalogue.read_lists([outer])
    [spec], [row] = found.specs, found.failures
    assert (spec.descriptor, spec.expected.over_http) == (IMAGE, frozenset())
    assert row.error is not None and (row.error.kind, row.reason) == (
        "bad-signature",
        "the list is not signed",
    )


def test_nor_for_one_that_is_taken_unsigned() -> None:
    world = World(Trust(allow_unsigned=True))
    outer, inner = Url("http://lists.example.org/outer"), Url("http://lists.example.org/inner")
    world.put(outer, clear_signed(KEY, f"list={inner.full}\n".encode()))
    world.put(inner, signed(hepix(**{"dc:date:expires": ""})))
    [spec] = world.catalogue.read_lists([outer]).specs
    assert spec.expected.over_http == frozenset(spec.expected.digests) != frozenset()
    assert world.events.named("list.unsigned")


def test_a_clear_signed_list_needs_a_keyring() -> None:
    location = Url("http://lists.example.org/list")
    sources = FakeSources({location: clear_signed(KEY, IMAGE.encode())})
    catalogue = Catalogue(sources, ListEvents(), FakeClock(), folder=Path("/lists"))
    with pytest.raises(ConfigError) as refusal:
        catalogue.read_lists([location])
    assert refusal.value.kind is ErrorKind.BAD_SIGNATURE


STREAM = Url("https://mirror.example.org/streams/v1/index.json")
INDEX = b'{"format": "index:1.0", "index": {}}'


@pytest.mark.parametrize(
    ("content", "signature", "refused"),
    [
        (INDEX, beside(KEY, INDEX), None),
        (clear_signed(KEY, INDEX), None, None),
        (INDEX, None, "is not signed"),
        (INDEX, beside(STRANGER, INDEX), "not in the keyring"),
        (INDEX, beside(KEY), "is not good"),
    ],
    ids=["beside", "inside", "none", "a stranger's", "of other bytes"],
)
def test_documents_of_simplestreams_are_signed_where_there_is_a_keyring(
    world: World, content: bytes, signature: bytes | None, refused: str | None
) -> None:
    world.put(STREAM, content)
    if signature is not None:
        world.put(Url(f"{STREAM.full}.gpg"), signature)
    if refused is None:
        assert world.catalogue.read_lists([STREAM]).failures == ()
        return
    with pytest.raises(ConfigError, match=refused):
        world.catalogue.read_lists([STREAM])
