"""Images inside of tar archives and OVAs: the one disk comes out, every trick is refused."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancing.decompress import HEAD_BYTES, OutputLimit, decompress, sniff
from glancing.errors import ErrorKind, GlancingError, VerificationError
from glancing.model import MIB, Compression
from tests.archives import archive, manifest, member, ovf
from tests.images import noise

DISK = noise(100_000)
OVF = ovf("disk.vmdk")
AMPLE = OutputLimit(64 * MIB, max_ratio=None)


def pieces(data: bytes, size_bytes: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


def unpack(data: bytes, size_bytes: int = 1000) -> bytes:
    return b"".join(decompress(pieces(data, size_bytes), sniff(data[:HEAD_BYTES]), AMPLE))


# --- what is read ---------------------------------------------------------------------------------

LONG = "below/" * 30 + "disk.raw"
GOOD = {
    "a lone disk": archive(member("disk.raw", DISK)),
    "in a folder": archive(member("./a", type=tarfile.DIRTYPE), member("./a/disk.raw", DISK)),
    "with notes": archive(
        member("README", b"x"), member("disk.raw", DISK), member("disk.raw.sha256", b"y")
    ),
    "GNU's header": archive(member("disk.raw", DISK), form=tarfile.GNU_FORMAT),
    "GNU's long name": archive(member(LONG, DISK), form=tarfile.GNU_FORMAT),
    "a prefix": archive(member(LONG, DISK)),
    "pax headers": archive(member("dïsk.raw", DISK, mtime=1.5), form=tarfile.PAX_FORMAT),
    "a pax size": archive(
        member("disk.raw", DISK, pax_headers={"size": str(len(DISK))}), form=tarfile.PAX_FORMAT
    ),
    "an OVA": archive(member("box.ovf", OVF), member("disk.vmdk", DISK)),
    "a manifest before": archive(
        member("box.ovf", OVF),
        member("box.mf", manifest("sha256", box__ovf=OVF, disk__vmdk=DISK)),
        member("disk.vmdk", DISK),
    ),
    "a manifest behind": archive(
        member("box.ovf", OVF),
        member("disk.vmdk", DISK),
        member("box.mf", manifest("sha1", box__ovf=OVF, disk__vmdk=DISK)),
        member("box.cert", b"x"),
    ),
    "another file": archive(
        member("box.ovf", ovf("disk.vmdk", others=("box.nvram",))),
        member("box.nvram", b"x" * 1000),
        member("disk.vmdk", DISK),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_one_disk_comes_out(name: str) -> None:
    """Whatever the pieces that the archive comes in."""
    assert sniff(GOOD[name][:HEAD_BYTES]) is Compression.TAR
    assert all(unpack(GOOD[name], size) == DISK for size in (511, 1000, len(GOOD[name])))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_compressed_archive_is_taken_out_of_both(pack: object) -> None:
    assert callable(pack)
    assert unpack(pack(GOOD["an OVA"])) == DISK
    assert unpack(pack(DISK)) == DISK


def test_what_the_tar_program_makes(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(DISK)
    for form in ("ustar", "gnu", "oldgnu", "posix"):
        words = ["tar", "-c", f"--format={form}", "disk.raw"]
        made = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True).stdout
        assert unpack(made) == DISK


@given(
    st.lists(
        st.tuples(st.text("abcdefg/.-", min_size=1, max_size=150), st.integers(0, 3000)),
        max_size=4,
        unique_by=lambda pair: pair[0],
    ),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_as_tarfile_reads_it(files: list[tuple[str, int]], form: int) -> None:
    """Either the one disk exactly as another reader finds it, or a refusal."""
    try:
        whole = archive(*(member(name, noise(size, size)) for name, size in files), form=form)
    except ValueError:
        return  # a name that this format cannot hold
    try:
        found = b"".join(decompress(pieces(whole), Compression.TAR, AMPLE))
    except GlancingError:
        return
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        contents = [tar.extractfile(info) for info in tar.getmembers() if info.isreg()]
        assert found in [content.read() for content in contents if content]


# --- what is refused ------------------------------------------------------------------------------

HUGE = member("disk.raw", DISK, pax_headers={"comment": "x" * (1 << 20)})
LONE = GOOD["a lone disk"]
BAD = {
    "no member": (archive(), "no disk"),
    "only notes": (archive(member("README.txt", b"x")), "no disk"),
    "two disks": (archive(member("a.raw", DISK), member("b.raw", DISK)), "'a.raw' and 'b.raw'"),
    "an empty disk": (archive(member("a.raw")), "is empty"),
    "one name twice": (archive(member("a.txt", b"x"), member("a.txt", b"y")), "stands twice"),
    "one name twice, in two spellings": (
        archive(member("a.raw", DISK), member("./a.raw", DISK)),
        "stands twice",
    ),
    "a link": (archive(member("a", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "symbolic link"),
    "a hard link": (archive(member("a", type=tarfile.LNKTYPE, linkname="b")), "a link"),
    "a device": (archive(member("a", type=tarfile.CHRTYPE)), "a device"),
    "a pipe": (archive(member("a", type=tarfile.FIFOTYPE)), "a pipe"),
    "a sparse file": (archive(member("a", DISK, type=tarfile.GNUTYPE_SPARSE)), "sparse file"),
    "a sparse file of pax": (
        archive(
            member("a.raw", DISK, pax_headers={"GNU.sparse.major": "1"}), form=tarfile.PAX_FORMAT
        ),
        "sparse file",
    ),
    "a way out": (archive(member("../../etc/cron.d/x", DISK)), "leads out"),
    "a way out below": (archive(member("a/../../x", DISK)), "leads out"),
    "an absolute name": (archive(member("/etc/cron.d/x", DISK)), "leads out"),
    "a huge header": (archive(HUGE, form=tarfile.PAX_FORMAT), "extended header of"),
    "a size for all": (
        archive(member("size", b"14 size=100000\n", type=b"g")),
        "damaged",
    ),
    "a damaged size": (
        archive(member("x", b"13 size=-100\n", type=b"x"), member("disk.raw", DISK)),
        "damaged",
    ),
    "many members": (archive(*(member(f"{n}.txt") for n in range(1002))), "more than 1000"),
    "many headers": (
        archive(*(member("x", b"6 a=b\n", type=b"x") for _ in range(1002))),
        "too many headers",
    ),
    "cut in the data": (LONE[:50_000], "too early"),
    "cut in a header": (LONE[: 512 + 100_352 + 100], "too early"),
    "no end": (LONE[: 512 + 100_352], "too early"),
    "something behind": (LONE + b"x", "follows its end"),
    "a damaged header": (
        archive(member("a.txt", b"x" * 512))[:1024] + b"x" * 1024,
        "header is damaged",
    ),
    "a negative size": (LONE[:124] + b"\xff" * 12 + LONE[136:], "damaged"),
    "an OVA without its disk": (archive(member("a.ovf", OVF)), "no disk 'disk.vmdk'"),
    "an OVA of two": (archive(member("a.ovf", ovf("a", "b"))), "names 2 disks"),
    "an OVA of none": (archive(member("a.ovf", ovf())), "names 0 disks"),
    "a descriptor behind": (archive(member("a.raw", DISK), member("a.ovf", OVF)), "first member"),
    "two descriptors": (archive(member("a.ovf", OVF), member("b.ovf", OVF)), "first member"),
    "a compressed disk": (
        archive(member("a.ovf", ovf("disk.vmdk", attributes='ovf:compression="gzip"'))),
        "compressed inside",
    ),
    "a disk in chunks": (
        archive(member("a.ovf", ovf("disk.vmdk", attributes='ovf:chunkSize="1000"'))),
        "several chunks",
    ),
    "a disk elsewhere": (archive(member("a.ovf", ovf("http://h/disk"))), "not in the archive"),
    "a disk outside": (archive(member("a.ovf", ovf("../disk"))), "not in the archive"),
    "a document type": (archive(member("a.ovf", b"<!DOCTYPE x><x/>")), "document type"),
    "no XML": (archive(member("a.ovf", b"x")), "no proper XML"),
    "another document": (archive(member("a.ovf", b"<html/>")), "no OVF envelope"),
    "a large descriptor": (archive(member("a.ovf", bytes(MIB + 1))), "descriptor of"),
    "a stranger": (
        archive(member("a.ovf", OVF), member("evil.vmdk", DISK), member("disk.vmdk", DISK)),
        "does not name 'evil.vmdk'",
    ),
    "a manifest that lacks the disk": (
        archive(
            member("a.ovf", OVF),
            member("disk.vmdk", DISK),
            member("a.mf", manifest("sha256", a__ovf=OVF)),
        ),
        "does not list 'disk.vmdk'",
    ),
    "a manifest of nonsense": (
        archive(member("a.ovf", OVF), member("a.mf", b"nonsense"), member("disk.vmdk", DISK)),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_archives_that_are_refused(name: str) -> None:
    """Fault 23."""
    data, message = BAD[name]
    with pytest.raises(VerificationError, match=message) as caught:
        b"".join(decompress(pieces(data), Compression.TAR, AMPLE))
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_manifest_that_does_not_hold(algorithm: str) -> None:
    """Fault 29, inside of an OVA, whether it stands before or behind the disk."""
    lies = member("a.mf", manifest(algorithm, a__ovf=OVF, disk__vmdk=DISK[1:]))
    for order in (lies, member("disk.vmdk", DISK)), (member("disk.vmdk", DISK), lies):
        with pytest.raises(VerificationError, match="manifest says") as caught:
            unpack(archive(member("a.ovf", OVF), *order))
        assert caught.value.kind is ErrorKind.WRONG_DIGEST


def test_a_bomb_in_an_archive_is_stopped() -> None:
    """Fault 19: the limit counts what is unpacked, whatever the archive says of itself."""
    bomb = lzma.compress(archive(member("disk.raw", bytes(8 * MIB))))
    seen = 0
    unpacked = decompress(pieces(bomb), Compression.XZ, OutputLimit(4 * MIB))
    with pytest.raises(VerificationError) as caught:  # noqa: PT012 - what came before counts
        for piece in unpacked:
            seen += len(piece)
    assert caught.value.kind is ErrorKind.TOO_LARGE and seen <= 4 * MIB


@given(st.binary(max_size=2000))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """With a first header that is right, and anything behind it."""
    try:
        b"".join(decompress(pieces(LONE[:512] + data), Compression.TAR, AMPLE))
    except GlancingError:
        return
