"""Images inside of archives, through the program and into the real Glance."""

from __future__ import annotations

import lzma
from hashlib import sha256, sha512

import pytest

from tests import images
from tests.archives import archive, manifest, member, ovf
from tests.imagelist_documents import HEPIX_IMAGE, hepix
from tests.program import Program
from tests.servers import ImageServer
from tests.shelf import Shelf

DISK = images.vmdk()
OVF = ovf("disk.vmdk")
OVA = archive(
    member("box.ovf", OVF),
    member("disk.vmdk", DISK),
    member("box.mf", manifest("sha256", box__ovf=OVF, disk__vmdk=DISK)),
)


def test_the_disk_of_an_ova(glancing: Program, shelf: Shelf) -> None:
    """Fault 23: size and digest of the list are those of the archive; VMDK stays VMDK."""
    with ImageServer({"/box.ova": OVA}) as server:
        said = {
            "hv:uri": server.url("/box.ova"),
            "hv:format": "OVA",
            "hv:size": str(len(OVA)),
            "sl:checksum:md5": "",
            "sl:checksum:sha512": sha512(OVA).hexdigest(),
        }
        (glancing.cwd / "list").write_bytes(hepix(said))
        identifier = str(HEPIX_IMAGE["dc:identifier"])
        run = glancing.run("import", "-c", "list", identifier, "-n", "box")
        assert (run.outcomes, run.row["integrity"]) == ({"box": "uploaded"}, "published")
        image = shelf.named("box")
        assert (image["disk_format"], image["container_format"]) == ("vmdk", "bare")
        assert shelf.data("box") == DISK
        asked = len(server.requests)
        again = glancing.run("import", "-c", "list", identifier, "-n", "box")
        assert again.outcomes == {"box": "unchanged"} and len(server.requests) == asked


def test_the_disk_of_a_compressed_archive(glancing: Program, shelf: Shelf) -> None:
    disk = images.raw()
    packed = lzma.compress(archive(member("disk.raw", disk), member("README", b"x")))
    with ImageServer({"/disk.tar.xz": packed}) as server:
        digest = sha256(packed).hexdigest()
        (glancing.cwd / "vmlist").write_text(f"{server.url('/disk.tar.xz')} sums={digest} name=a")
        assert glancing.run("sync", "-l", "vmlist").outcomes == {"a": "uploaded"}
        assert shelf.data("a") == disk
        asked = len(server.requests)
        assert glancing.run("sync", "-l", "vmlist").outcomes == {"a": "unchanged"}
        assert len(server.requests) == asked


LIES = archive(
    member("box.ovf", OVF),
    member("disk.vmdk", DISK),
    member("box.mf", manifest("sha256", box__ovf=OVF, disk__vmdk=DISK[1:])),
)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(LIES, "wrong-digest", id="its manifest does not hold"),
        pytest.param(
            archive(member("a.raw", images.raw()), member("b.raw", images.raw())),
            "bad-compression",
            id="two disks",
        ),
        pytest.param(OVA[:-9000], "bad-compression", id="cut short"),
        pytest.param(archive(member("a.img", OVA)), "unsafe-format", id="an archive in an archive"),
        pytest.param(
            archive(member("a.qcow2", images.qcow2(backing_file=True))),
            "unsafe-format",
            id="a disk that reads other files",
        ),
    ],
)
def test_nothing_of_a_bad_archive_gets_in(
    glancing: Program, shelf: Shelf, data: bytes, kind: str
) -> None:
    """Faults 23 and 26: the tail is withheld until all of the archive was read."""
    (glancing.cwd / "box.ova").write_bytes(data)
    run = glancing.run("import", "box.ova")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, kind)
    assert shelf.all() == []
    assert not list(glancing.cwd.glob("glancing-*"))
