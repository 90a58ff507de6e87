"""Bombs and archives, from real sources into a real Glance, in one pass.

Faults 19 and 23: OVAs and compressed tar archives; what is wrong with one leaves nothing behind.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.imagelist_documents import HEPIX_IMAGE, hepix
from tests.program import Program
from tests.servers import ImageServer
from tests.shelf import Shelf
from tests.tarballs import archive, manifest, member, ova, ovf
from tests.test_commands_limits import MEASURE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024
RAW = images.raw()
VMDK = images.vmdk("streamOptimized", 'RW 131072 SPARSE "disk.vmdk"', grains=images.noise(9 * MIB))
OVF = member("box.ovf", ovf("disk.vmdk"))


@pytest.mark.parametrize("word", ["OVA", "ova"])
def test_an_ova_of_a_hepix_list(glancing: Program, shelf: Shelf, word: str) -> None:
    """The list's digest and size are of the archive; Glance gets the disk, as a bare vmdk."""
    packed = ova(VMDK)
    with ImageServer({"/box.ova": packed}) as server:
        changes = {
            "hv:uri": server.url("/box.ova"),
            "hv:format": word,
            "hv:size": len(packed),
            "sl:checksum:md5": "",
            "sl:checksum:sha512": hashlib.sha512(packed).hexdigest(),
        }
        (glancing.cwd / "list").write_bytes(hepix(changes))
        run = glancing.run("import", "-c", "list", str(HEPIX_IMAGE["dc:identifier"]))
    assert run.exit_code == 0, run.output
    image = shelf.get(run.row["image_id"])
    assert (image["disk_format"], image["container_format"]) == ("vmdk", "bare")
    assert shelf.data(image["name"]) == VMDK
    assert run.row["matched"] == ["sha512 of the published file"]
    assert run.row["digests"]["sha512"] == hashlib.sha512(VMDK).hexdigest()
    kept = json.dumps(image)
    assert hashlib.sha512(packed).hexdigest() in kept


def test_a_compressed_tar_of_a_list(glancing: Program, shelf: Shelf) -> None:
    """And a second run has nothing to do."""
    packed = lzma.compress(archive(member("README", b"read"), member("./disk.raw", RAW)))
    digest = hashlib.sha256(packed).hexdigest()
    with ImageServer({"/disk.tar.xz": packed}) as server:
        line = f"{server.url('/disk.tar.xz')} name=box sums=sha256:{digest}"
        (glancing.cwd / "vmlist").write_text(line)
        first = glancing.run("sync", "-l", "vmlist")
        second = glancing.run("sync", "-l", "vmlist")
    assert (first.outcomes, second.outcomes) == ({"box": "uploaded"}, {"box": "unchanged"})
    assert shelf.named("box")["disk_format"] == "raw" and shelf.data("box") == RAW


WRONG = manifest(OVF, member("disk.vmdk", b"other bytes"))
REFUSED = {
    "a wrong manifest before": (archive(OVF, WRONG, member("disk.vmdk", VMDK)), "wrong-digest"),
    "a wrong manifest behind": (archive(OVF, member("disk.vmdk", VMDK), WRONG), "wrong-digest"),
    "two disks": (archive(member("a.raw", VMDK), member("b.raw", RAW)), "bad-compression"),
    "two disks of an OVA": (
        archive(member("box.ovf", ovf("a.vmdk", "b.vmdk")), member("a.vmdk", VMDK)),
        "bad-compression",
    ),
    "an archive in the archive": (archive(member("in.tar", archive(OVF))), "unsafe-format"),
    "gz in the archive": (archive(member("disk.raw.gz", gzip.compress(RAW))), "unsafe-format"),
    "a qcow2 with a backing file": (
        archive(member("disk.raw", images.qcow2(backing_file=True))),
        "unsafe-format",
    ),
    "a flat VMDK": (
        ova(images.vmdk("monolithicFlat", 'RW 131072 FLAT "/etc/shadow" 0')),
        "unsafe-format",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_leaves_nothing(glancing: Program, shelf: Shelf, name: str) -> None:
    """Faults 23 and 26: also where the disk has been sent almost whole when it shows."""
    data, kind = REFUSED[name]
    (glancing.cwd / "box.ova").write_bytes(data)
    run = glancing.run("import", "box.ova")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, kind)
    assert shelf.all() == []


def zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("disk.raw", data)
    return packed.getvalue()


def note(data: bytes) -> bytes:
    return bz2.compress(archive(member("README", data), member("disk.raw", RAW)))


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=1),
    "zstd": zstd.compress,
    "zip": zipped,
    "tar.bz2": lambda data: bz2.compress(archive(member("disk.raw", data))),
    "a note in tar.bz2": note,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_end_in_a_refusal_within_little_memory(kind: str, tmp_path: Path) -> None:
    """Fault 19: real files, a real process, and what it took at most."""
    (tmp_path / "bomb").write_bytes(BOMBS[kind](bytes(96 * MIB)))
    measured = (sys.executable, "-c", MEASURE, str(tmp_path / "peak"))
    words = ("import", "-d", "bomb", "--max-size", "80M")
    with Program(tmp_path).start(*words, wrapper=measured) as running:
        run = running.finish()
    kinds = ("bad-compression",) if kind == "a note in tar.bz2" else ("too-large",)
    assert run.exit_code == 1 and run.row["error"]["kind"] in kinds
    assert int((tmp_path / "peak").read_text()) <= 128 * MIB


@pytest.mark.parametrize(
    ("data", "word", "kind"),
    [
        (images.qcow2(), "raw", "format-mismatch"),
        (gzip.compress(gzip.compress(RAW)), "raw", "unsafe-format"),
        (images.qcow2(incompatible=images.QCOW2_DATA_FILE), "qcow2", "unsafe-format"),
        (images.luks(), "raw", "unsafe-format"),
        *((make(), "raw", "format-mismatch") for make in (images.vhd, images.vhdx, images.iso)),
    ],
    ids=["qcow2", "gz", "data file", "luks", "vhd", "vhdx", "iso"],
)
def test_no_image_passes_for_another(data: bytes, word: str, kind: str, tmp_path: Path) -> None:
    """Faults 26 and 27: by the program as a whole."""
    (tmp_path / "disk.img").write_bytes(data)
    run = Program(tmp_path).run("import", "-d", "disk.img", "--disk-format", word)
    assert (run.exit_code, run.row["error"]["kind"]) == (1, kind)


def test_a_tar_is_never_a_raw_disk(tmp_path: Path) -> None:
    """Fault 23: nor is one whose first header is damaged."""
    data = bytearray(archive(member("disk.raw", RAW), form=tarfile.GNU_FORMAT))
    data[0] ^= 1
    (tmp_path / "disk.img").write_bytes(data)
    run = Program(tmp_path).run("import", "-d", "disk.img", "--disk-format", "raw")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, "unsafe-format")
