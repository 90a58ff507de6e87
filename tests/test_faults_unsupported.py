"""What glancing cannot verify or unpack it refuses: nothing of it is ever taken on trust.

Faults 34 and 35: lists whose signature would have to be verified are not read by ``sync``, and not
fetched by ``import``. Fault 23: tar archives that try anything are not unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imagelist_documents import HEPIX_IMAGE, hepix, signed
from tests.images import noise
from tests.program import Program
from tests.servers import ImageServer
from tests.tarballs import archive, member, ova, ovf

DISK = noise(4096)
GOOD = ova(DISK)
ARCHIVES = {
    "a link": archive(
        member("box.ovf", ovf("disk.vmdk")),
        member("disk.vmdk", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    ),
    "a way out": archive(member("../../etc/cron.d/x", DISK)),
    "an absolute name": archive(member("/etc/cron.d/x", DISK)),
    "one name twice": archive(member("disk.vmdk", DISK), member("disk.vmdk", DISK[::-1])),
    "a device": archive(member("disk.vmdk", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "a huge header": archive(
        member("disk.vmdk", DISK, pax_headers={"comment": "x" * (32 << 20)}),
        form=tarfile.PAX_FORMAT,
    ),
    "cut short": GOOD[:1000],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_tar_archives_are_refused(name: str, tmp_path: Path) -> None:
    """Fault 23: and nothing of them is ever written anywhere."""
    (tmp_path / "box.ova").write_bytes(ARCHIVES[name])
    run = Program(tmp_path).run("import", "-d", "box.ova")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, "bad-compression")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box.ova"]


LISTS: dict[str, Callable[[], bytes]] = {
    "unsigned": hepix,
    "signed": lambda: signed(hepix()),
    "changed": lambda: signed(hepix()).replace(b"Small image", b"Other image"),
    "expired": lambda: signed(hepix(**{"dc:date:expires": "2001-01-01T00:00:00Z"})),
    "from the future": lambda: signed(hepix(**{"dc:date:created": "2099-01-01T00:00:00Z"})),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_would_have_to_be_verified_are_refused(name: str, tmp_path: Path) -> None:
    """Faults 34 and 35: no word of a list counts whose signature nobody looked at."""
    data = LISTS[name]()
    (tmp_path / "list").write_bytes(data)
    with ImageServer({"/list": data}) as server:
        program = Program(tmp_path)
        identifier = str(HEPIX_IMAGE["dc:identifier"])
        for words in (
            ("sync", "-l", "list"),
            ("sync", "-l", server.url("/list")),
            ("import", "-d", "-c", server.url("/list"), identifier),
        ):
            assert program.run(*words).exit_code == 2
