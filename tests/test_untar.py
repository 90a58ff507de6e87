"""Fault 23: one disk comes out of a tar archive or an OVA, or nothing does."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing.decompress import OUTPUT_BYTES, OutputLimit, decompress, sniff
from glancing.errors import ErrorKind, VerificationError
from glancing.model import Compression
from tests.images import MIB, noise
from tests.tarballs import Member, archive, manifest, member, ova, ovf

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DISK = noise(70_001)
LIMIT = OutputLimit(64 * MIB)
LONG = "a/" * 120 + "disk.raw"
OVF = member("box.ovf", ovf("disk.vmdk"))
VMDK = member("disk.vmdk", DISK)


def unpack(data: bytes, step: int = 1000) -> bytes:
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    out = list(decompress(pieces, sniff(data[:512]), LIMIT))
    assert all(0 < len(piece) <= OUTPUT_BYTES for piece in out)
    return b"".join(out)


def reason(data: bytes) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        unpack(data)
    return caught.value


def resized(field: bytes) -> bytes:
    """A header that says another size."""
    header = bytearray(archive(member("disk.raw", DISK)))
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def without_magic() -> bytes:
    """As tar wrote it before 1988."""
    old = bytearray(archive(member("disk.raw", DISK)))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    return bytes(old)


PLAIN = archive(member("disk.raw", DISK))
GOOD: dict[str, bytes] = {
    "a tar": PLAIN,
    "no magic": without_magic(),
    "GNU's magic": archive(member("disk.raw", DISK), form=tarfile.GNU_FORMAT),
    "a long GNU name": archive(member(LONG, DISK), form=tarfile.GNU_FORMAT),
    "a long pax name": archive(member(LONG, DISK), form=tarfile.PAX_FORMAT),
    "notes and folders": archive(
        member("./", type=tarfile.DIRTYPE),
        member("./README.txt", b"read"),
        member("./SHA256SUMS", b"sums"),
        member("./disk.raw", DISK),
        member("disk.raw.sha256", b"sum"),
    ),
    "gz": gzip.compress(PLAIN),
    "bz2": bz2.compress(PLAIN),
    "xz": lzma.compress(PLAIN),
    "zstd": zstd.compress(PLAIN),
    "an OVA": ova(DISK),
    "an OVA in gz": gzip.compress(ova(DISK)),
    "the manifest behind": archive(OVF, VMDK, manifest(OVF, VMDK)),
    "sha1 in the manifest": archive(OVF, manifest(OVF, VMDK, algorithm="sha1"), VMDK),
    "no manifest": archive(OVF, VMDK),
    "a certificate": archive(OVF, manifest(OVF, VMDK), member("box.cert", b"c"), VMDK),
    "a file of the descriptor": archive(
        member(
            "box.ovf",
            ovf("disk.vmdk", others='<File ovf:id="n" ovf:href="box.nvram"/>'),
        ),
        VMDK,
        member("box.nvram", b"n"),
    ),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("step", [7, 512, 100_000])
def test_the_one_disk_comes_out(name: str, step: int) -> None:
    assert unpack(GOOD[name], step) == DISK


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=200),
    data=st.binary(min_size=1, max_size=2000),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_tarfile_packs_is_read_as_tarfile_reads_it(name: str, data: bytes, form: int) -> None:
    packed = archive(member(f"d/{name}.raw", data), form=form)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
        (info,) = tar.getmembers()
        content = tar.extractfile(info)
        assert content is not None and unpack(packed) == content.read()


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_the_program_tar_packs(form: str, tmp_path: Path) -> None:
    program = shutil.which("tar")
    assert program is not None
    (tmp_path / "disk.raw").write_bytes(DISK)
    words = [program, f"--format={form}", "-C", str(tmp_path), "-c", "disk.raw"]
    assert unpack(subprocess.run(words, check=True, capture_output=True).stdout) == DISK


def changed(data: bytes) -> Member:
    return member("disk.vmdk", data)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "two disks": (
        lambda: archive(member("a.raw", DISK), member("b.raw", DISK)),
        "two disks, 'a.raw' and 'b.raw'",
    ),
    "no disk": (lambda: archive(member("README", b"x")), "no disk"),
    "an empty disk": (lambda: archive(member("disk.raw")), "is empty"),
    "a way out": (lambda: archive(member("../x.raw", DISK)), "leads out"),
    "a pax way out": (
        lambda: archive(member("x", DISK, pax_headers={"path": "/etc/x"}), form=tarfile.PAX_FORMAT),
        "leads out",
    ),
    "an absolute name": (lambda: archive(member("/etc/x", DISK)), "leads out"),
    "one name twice": (lambda: archive(VMDK, VMDK), "stands twice"),
    "a symbolic link": (
        lambda: archive(member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "a symbolic link",
    ),
    "a link": (lambda: archive(member("x", type=tarfile.LNKTYPE, linkname="y")), "a link"),
    "a device": (lambda: archive(member("x", type=tarfile.CHRTYPE)), "a device"),
    "a pipe": (lambda: archive(member("x", type=tarfile.FIFOTYPE)), "a pipe"),
    "a sparse file": (
        lambda: archive(
            member("x", DISK, pax_headers={"GNU.sparse.major": "1"}), form=tarfile.PAX_FORMAT
        ),
        "sparse",
    ),
    "a huge header": (
        lambda: archive(
            member("x", DISK, pax_headers={"comment": "x" * MIB}), form=tarfile.PAX_FORMAT
        ),
        "extended header of",
    ),
    "a negative pax size": (
        lambda: archive(
            member("x", DISK, pax_headers={"comment": "1", "size": "-5"}), form=tarfile.PAX_FORMAT
        ),
        "size in an extended header",
    ),
    "a negative size": (lambda: resized(b"\xff" * 12), "number in a header"),
    "a size beyond the end": (lambda: resized(b"\x80" + b"\x7f" * 11), "too early"),
    "many members": (lambda: archive(*(member(f"{n}.txt", b"x") for n in range(2001))), "headers"),
    "many folders": (
        lambda: archive(*(member(f"{n}", type=tarfile.DIRTYPE) for n in range(2001))),
        "headers",
    ),
    "a huge note": (
        lambda: gzip.compress(archive(member("README", bytes(65 * MIB))), 1),
        "too large",
    ),
    "cut short": (lambda: PLAIN[:5000], "too early"),
    "no end": (lambda: PLAIN[: 512 + 70_144], "too early"),
    "garbage behind": (lambda: PLAIN + b"x", "follows its end"),
    "a second archive behind": (lambda: PLAIN + PLAIN, "follows its end"),
    "garbage behind in gz": (lambda: gzip.compress(PLAIN) + b"x", "broken"),
    "two disks in an OVA": (
        lambda: archive(member("box.ovf", ovf("a.vmdk", "b.vmdk")), member("a.vmdk", DISK)),
        "names 2 disks",
    ),
    "a disk too many": (lambda: archive(OVF, VMDK, member("b.vmdk", DISK)), "does not name"),
    "another disk": (lambda: archive(OVF, member("b.vmdk", DISK)), "does not name"),
    "the disk first": (lambda: archive(VMDK, OVF), "not its first member"),
    "a compressed disk": (
        lambda: archive(
            member("box.ovf", ovf("disk.vmdk", attributes='ovf:compression="gzip"')), VMDK
        ),
        "compressed inside",
    ),
    "a disk in chunks": (
        lambda: archive(member("box.ovf", ovf("disk.vmdk", attributes='ovf:chunkSize="9"')), VMDK),
        "several chunks",
    ),
    "a disk elsewhere": (
        lambda: archive(member("box.ovf", ovf("https://example.org/d.vmdk"))),
        "not in the archive",
    ),
    "a document type": (
        lambda: archive(
            member("box.ovf", ovf("disk.vmdk", doctype='<!DOCTYPE x [<!ENTITY a "b">]>')), VMDK
        ),
        "document type",
    ),
    "no XML": (lambda: archive(member("box.ovf", b"<x"), VMDK), "no proper XML"),
    "a large descriptor": (lambda: archive(member("box.ovf", bytes(2 * MIB)), VMDK), "descriptor"),
    "a manifest that forgets": (lambda: archive(OVF, manifest(OVF), VMDK), "does not list"),
}


@pytest.mark.parametrize("name", BAD)
def test_all_else_is_refused_with_the_reason(name: str) -> None:
    make, words = BAD[name]
    error = reason(make())
    assert error.kind is ErrorKind.BAD_COMPRESSION and words in error.message


@pytest.mark.parametrize(
    "data",
    [
        archive(OVF, manifest(OVF, changed(b"x")), VMDK),
        archive(OVF, VMDK, manifest(OVF, changed(b"x"))),
        archive(OVF, manifest(member("box.ovf", b"x"), VMDK), VMDK),
    ],
    ids=["before", "behind", "descriptor"],
)
def test_the_manifest_has_to_hold(data: bytes) -> None:
    assert reason(data).kind is ErrorKind.WRONG_DIGEST


def test_a_bomb_inside_stops_at_the_cap() -> None:
    """Fault 19: of an archive, it is all that is unpacked that counts."""
    packed = bz2.compress(archive(member("disk.raw", bytes(24 * MIB))))
    sizes: list[int] = []
    with pytest.raises(VerificationError) as caught:
        sizes.extend(map(len, decompress(iter([packed]), Compression.BZIP2, OutputLimit(8 * MIB))))
    assert caught.value.kind is ErrorKind.TOO_LARGE and sum(sizes) <= 8 * MIB


def test_a_name_of_its_own_header_may_be_cut_anywhere_in_the_members() -> None:
    """GNU's short name ends after 100 bytes, in the middle of a character too."""
    assert unpack(archive(member("a" + "é" * 80 + ".raw", DISK), form=tarfile.GNU_FORMAT)) == DISK


def test_a_name_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(VerificationError, match="not UTF-8"):
        unpack(archive(member("\udcff.raw", DISK), form=tarfile.GNU_FORMAT))
