"""``glancing sync``: names and digests on a line, lists in lists, folders, and the latest image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest

from tests import images
from tests.marketplace import Marketplace
from tests.program import Program
from tests.servers import Authority, ImageServer
from tests.shelf import Shelf

OLD, NEW, OTHER = (images.raw(64 * 1024 + 512 * number) for number in range(3))


def sums(**files: bytes) -> bytes:
    """A checksum file; two underscores stand for a dot."""
    lines = (f"{sha256(d).hexdigest()} *{n.replace('__', '.')}\n" for n, d in files.items())
    return "".join(lines).encode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def mirror(authority: Authority) -> Iterator[ImageServer]:
    with ImageServer({}, tls=authority.server()) as server:
        yield server


@pytest.fixture
def sync(glancing: Program, authority: Authority) -> Program:
    """The program, trusting the mirror's certificate."""
    trusted = {"SSL_CERT_FILE": str(authority.file)}
    return replace(glancing, environ={**glancing.environ, **trusted})


def test_the_latest_image_is_downloaded_once(
    sync: Program, shelf: Shelf, mirror: ImageServer
) -> None:
    """A digest that is found at run time tells that nothing is new, and no byte is fetched."""
    mirror.files = {"/current/disk.img": OLD, "/current/SHA256SUMS": sums(disk__img=OLD)}
    line = f"{mirror.url('/current/disk.img')} sums={mirror.url('/current/SHA256SUMS')} name=latest"
    (sync.cwd / "vmlist").write_text(line)
    run = sync.run("sync", "-l", "vmlist")
    assert (run.outcomes, run.row["integrity"]) == ({"latest": "uploaded"}, "published")
    before = len(mirror.requests)
    assert sync.run("sync", "-l", "vmlist").outcomes == {"latest": "unchanged"}
    assert [request.path for request in mirror.requests[before:]] == ["/current/SHA256SUMS"]
    mirror.files = {"/current/disk.img": NEW, "/current/SHA256SUMS": sums(disk__img=NEW)}
    assert sync.run("sync", "-l", "vmlist").outcomes == {"latest": "replaced"}
    assert (shelf.data("latest"), shelf.data("latest_old")) == (NEW, OLD)


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        pytest.param(sums(disk__img=NEW), "wrong-digest", id="of other bytes"),
        pytest.param(sums(my_disk__img=OLD), "bad-digest", id="of a name that only contains it"),
        pytest.param(b"<html>", "bad-digest", id="a web page"),
        pytest.param(None, "not-found", id="none there"),
    ],
)
def test_digests_that_cannot_be_had_or_do_not_match(
    sync: Program, shelf: Shelf, mirror: ImageServer, listed: bytes | None, kind: str
) -> None:
    """Faults 29 to 33: never "nothing to check"."""
    mirror.files = {"/disk.img": OLD, **({"/SUMS": listed} if listed else {})}
    (sync.cwd / "vmlist").write_text(f"{mirror.url('/disk.img')} sums={mirror.url('/SUMS')}")
    run = sync.run("sync", "-l", "vmlist")
    assert (run.exit_code, run.row["outcome"], run.row["error"]["kind"]) == (1, "failed", kind)
    assert shelf.all() == []


def test_words_on_a_line_name_and_check_an_image(
    sync: Program, shelf: Shelf, mirror: ImageServer
) -> None:
    mirror.files = {"/a": OLD}
    digest = sha256(OLD).hexdigest()
    line = f'{mirror.url("/a?v=1")} name="An image" id=one version=1 sums={digest} format=raw'
    (sync.cwd / "vmlist").write_text(line)
    assert sync.run("sync", "-l", "vmlist").outcomes == {"An image": "uploaded"}
    image = shelf.named("An image")
    assert (image["glancing_identity"], image["version"]) == ("one", "1")
    (sync.cwd / "vmlist").write_text(line.replace("v=1", "v=2").replace("An image", "Renamed"))
    assert sync.run("sync", "-l", "vmlist").outcomes == {"Renamed": "updated"}
    assert shelf.get(image["id"])["name"] == "Renamed"


def test_words_on_a_line_come_before_metadata(glancing: Program, shelf: Shelf) -> None:
    with Marketplace({}) as market:
        entry = market.publish("published", OLD)
        wrong = f"{entry} name=mine sums={sha256(NEW).hexdigest()}"
        (glancing.cwd / "vmlist").write_text(wrong)
        run = glancing.run("sync", "-l", "vmlist", "-u", market.base)
        assert run.row["error"]["kind"] == "wrong-digest" and shelf.all() == []
        (glancing.cwd / "vmlist").write_text(f"{entry} name=mine sums={sha256(OLD).hexdigest()}")
        run = glancing.run("sync", "-l", "vmlist", "-u", market.base)
    assert run.outcomes == {"mine": "uploaded"} and shelf.named("mine")["mpid"] == entry


def test_lists_include_lists(sync: Program, shelf: Shelf, mirror: ImageServer) -> None:
    """What cannot be had of it is a failed row with its place; all else goes on."""
    mirror.files = {"/far": f"{mirror.url('/b.img')}\n/etc/hosts\n".encode(), "/b.img": NEW}
    (sync.cwd / "below").mkdir()
    (sync.cwd / "below" / "a.img").write_bytes(OLD)
    (sync.cwd / "below" / "near").write_text("a.img\nlist=../vmlist\n")
    lines = [f"list={mirror.url('/far')}", "list=below/near", "list=gone"]
    (sync.cwd / "vmlist").write_text("\n".join(lines))
    run = sync.run("sync", "-l", "vmlist")
    assert run.exit_code == 1 and shelf.names() == ["a", "b"]
    failed = {row["descriptor"]: (row["list"], row["line"]) for row in run.rows if row["error"]}
    assert failed == {
        "gone": ("vmlist", 3),
        "/etc/hosts": (mirror.url("/far"), 2),
        "list=../vmlist": (str(sync.cwd / "below" / "near"), 2),
    }


def test_a_folder_of_images(glancing: Program, shelf: Shelf) -> None:
    """For sites without a way out: images, each with its digest in a checksum file."""
    place = glancing.cwd / "images"
    place.mkdir()
    for name, data in {"a.img": OLD, "b.raw": NEW, "c.iso": OTHER, "notes.txt": b"x"}.items():
        (place / name).write_bytes(data)
    (place / "SHA256SUMS").write_bytes(sums(a__img=OLD, absent__img=NEW))
    (place / "b.raw.sha256").write_text(sha256(OLD).hexdigest())
    run = glancing.run("sync", "-l", place.as_uri())
    kinds = {row["descriptor"].rpartition("/")[2]: row["error"] for row in run.rows}
    assert shelf.names() == ["a"] and kinds["a.img"] is None
    assert kinds["b.raw"]["kind"] == "wrong-digest"
    assert "no checksum file names c.iso" in kinds["c.iso"]["message"]
    (place / "b.raw.sha256").write_text(sha256(NEW).hexdigest())
    again = glancing.run("sync", "-l", str(place), "--only", "a", "--only", "b")
    assert again.outcomes == {"a": "unchanged", "b": "uploaded"}


def test_simplestreams_of_a_mirror(sync: Program, shelf: Shelf, mirror: ImageServer) -> None:
    """The newest serial of each product that the filters choose; a newer one replaces it."""
    entry = {"datatype": "image-downloads", "path": "streams/v1/images.json"}
    index = {"format": "index:1.0", "index": {"org.example:download": entry}}

    def publish(**serials: bytes) -> None:
        versions = {
            serial.strip("_"): {
                "pubname": f"tiny-{serial.strip('_')}",
                "items": {
                    "disk1.img": {
                        "ftype": "disk1.img",
                        "path": f"server/{serial}.img",
                        "size": len(data),
                        "sha256": sha256(data).hexdigest(),
                    }
                },
            }
            for serial, data in serials.items()
        }
        product = {"arch": "amd64", "os": "tiny", "version": "1", "versions": versions}
        other = {**product, "arch": "arm64"}
        document = {
            "format": "products:1.0",
            "content_id": "org.example:download",
            "products": {"org.tiny:amd64": product, "org.tiny:arm64": other},
        }
        mirror.files = {
            "/releases/streams/v1/index.json": json.dumps(index).encode(),
            "/releases/streams/v1/images.json": json.dumps(document).encode(),
            **{f"/releases/server/{serial}.img": data for serial, data in serials.items()},
        }

    place = mirror.url("/releases/streams/v1/index.json")
    words = ("sync", "-l", place, "--filter", "arch=amd64", "--newest", "1")
    one, two, three = (images.qcow2() + bytes(512 * number) for number in range(3))
    publish(_20260101=one, _20260102=two)
    assert sync.run(*words).outcomes == {"tiny-20260102-disk1.img": "uploaded"}
    image = shelf.named("tiny-20260102-disk1.img")
    assert (image["version"], image["architecture"], image["os_distro"]) == (
        *("20260102", "x86_64", "tiny"),
    )
    assert sync.run(*words).outcomes == {"tiny-20260102-disk1.img": "unchanged"}
    publish(_20260102=two, _20260103=three)
    assert sync.run(*words).outcomes == {"tiny-20260103-disk1.img": "replaced"}
    assert shelf.names() == ["tiny-20260102-disk1.img_old", "tiny-20260103-disk1.img"]
    publish(_20260101=one)
    run = sync.run(*words)
    assert run.row["error"]["kind"] == "downgrade" and len(shelf.all()) == 2
