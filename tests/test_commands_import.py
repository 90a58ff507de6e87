"""``glancing import`` as operators run it: what it is given, and what Glance has afterwards."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.conftest import empty
from tests.imagelist_documents import hepix, rdf_json, signed
from tests.marketplace import BASE, Checksums, Marketplace, checksums, image_id, metadata
from tests.program import Program, Run
from tests.servers import Served
from tests.shelf import Shelf

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RAW = images.raw()
QCOW2 = images.qcow2()
OTHER = images.raw(700 * 1024)
AT_ONCE = 4


def digest(algorithm: str, data: bytes) -> str:
    return hashlib.new(algorithm, data).hexdigest()


def zipped(*members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, member in enumerate(members):
            archive.writestr(f"disk{number}.img", member)
    return packed.getvalue()


def wrong(algorithm: str) -> str:
    return "0" * len(digest(algorithm, b""))


# --- what can be imported -------------------------------------------------------------------------

FORMATS: Mapping[str, tuple[str, bytes]] = {
    "qcow2": ("qcow2", QCOW2),
    "vmdk": ("vmdk", images.vmdk()),
    "vdi": ("vdi", images.vdi()),
    "vhd": ("vhd", images.vhd()),
    "vhdx": ("vhdx", images.vhdx()),
    "iso": ("iso", images.iso()),
    "hybrid": ("iso", images.iso(bootable_disk=True)),
    "mbr": ("raw", images.disk()),
    "gpt": ("raw", images.disk(gpt=True)),
    "ext4": ("raw", RAW),
}
PACKED: Mapping[str, bytes] = {
    "gz": gzip.compress(RAW),
    "bz2": bz2.compress(RAW),
    "xz": lzma.compress(RAW),
    "zst": zstd.compress(RAW),
    "zip": zipped(RAW),
}
HEPIX_ID = "deadbabe-0000-0000-0000-000000000001"
DASHED_ID = image_id("-abcd")


FIELDS: Mapping[str, str] = {
    "format": "dcterms:format",
    "compression": "dcterms:compression",
    "version": "slterms:version",
    "size": "slreq:bytes",
}


def documents(url: str) -> dict[str, bytes]:
    """The metadata and checksum files that the commands name, all by relative paths."""
    raw_sums = f"{digest('sha256', RAW)}  listed.raw\n".encode()

    def described(
        os_name: str,
        image: bytes = RAW,
        path: str = "/raw",
        sums: Checksums | None = None,
        **fields: str,
    ) -> bytes:
        location = fields.pop("location", url + path)
        named = {FIELDS[name]: value for name, value in fields.items()}
        return metadata(image, location, {"slterms:os": os_name, **named}, sums=sums)

    return {
        "plain.xml": described("Plain"),
        "wrapped.xml": metadata(RAW, url + "/raw", {"slterms:os": "Wrapped"}, around="metadata"),
        "entry.json": metadata(RAW, url + "/raw", {"slterms:os": "Json"}, form=rdf_json),
        "beside.xml": described("Beside", location="local.raw"),
        "blank.xml": described("Blank", format="", version=""),
        "undigested.xml": described("Undigested", sums=()),
        "gz.xml": described("Gzipped", path="/packed.gz", compression="gz"),
        "sha1.xml": described("Weak", sums=checksums(RAW, "SHA-1")),
        "badsum.xml": described("Badsum", sums=checksums(OTHER, "MD5")),
        "badsize.xml": described("Badsize", size="700000"),
        "cirros.xml": described("Cirros", QCOW2, "/qcow2"),
        "unsafe.xml": described("Unsafe", images.qcow2(backing_file=True), "/unsafe"),
        "notgz.xml": described("Notgz", compression="gz"),
        "notplain.xml": described("Notplain", path="/packed.gz", compression="none"),
        "lzh.xml": described("Lzh", compression="lzh"),
        "nowhere.xml": described("Nowhere", location=""),
        "ftp.xml": described("Ftp", location="ftp://images.example.org/x.img"),
        "shortsum.xml": described("Shortsum", sums=(("MD5", "123"),)),
        "html.xml": b"<!DOCTYPE html><html><body>It works!</body></html>",
        "text.xml": b"not found",
        "entities.xml": b'<!DOCTYPE r [<!ENTITY e "Plain">]>'
        + described("&e;").partition(b"?>")[2],
        "rmsg.json": b'{"rMsg": "no metadata with this identifier"}',
        "list.json": hepix(hepix_image(url)),
        "list.smime": signed(hepix(hepix_image(url))),
        "SHA256SUMS": raw_sums,
        "SHA512SUMS": f"{digest('sha512', RAW)} *listed.raw\n".encode(),
        "MD5SUMS": f"MD5 (listed.raw) = {digest('md5', RAW)}\n".encode(),
        "WRONGSUMS": f"{wrong('sha256')}  listed.raw\n".encode(),
        "OTHERSUMS": f"{wrong('sha256')}  unlisted.raw\n".encode(),
        "RAWSUMS": f"{digest('md5', RAW)}  raw\n".encode(),
    }


def hepix_image(url: str) -> dict[str, Any]:
    return {
        "dc:identifier": HEPIX_ID,
        "hv:uri": f"{url}/raw",
        "hv:size": str(len(RAW)),
        "sl:os": "Hepix",
        "sl:checksum:sha512": digest("sha512", RAW),
        "sl:checksum:md5": digest("md5", RAW),
    }


@dataclass(frozen=True, slots=True)
class Good:
    """A command line of ``import``, and what is in Glance after it."""

    words: str
    name: str
    data: bytes = RAW
    disk_format: str = "raw"
    integrity: str = "published"
    events: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


UNVERIFIED = ("image.unverified",)
LISTED = "listed.raw --name"
SUMS = ":".join(digest(name, RAW) for name in ("md5", "sha1", "sha224", "sha256", "sha384"))

GOOD: Mapping[str, Good] = {
    # what a descriptor may be
    "a file": Good("local.raw", "local", integrity="none", events=UNVERIFIED),
    "a URL": Good("{url}/files/remote.raw", "remote", integrity="none", events=UNVERIFIED),
    "a URL with more than a path": Good(
        "{url}/files/with%20space.raw?query=1#fragment", "with space", integrity="none"
    ),
    "XML": Good(
        "plain.xml",
        "Plain-1.0-x86_64",
        properties={"version": "20160411", "mpid": "Abcdefghijklmnopqrstuv-_012"},
    ),
    "XML in the other root form": Good("wrapped.xml", "Wrapped-1.0-x86_64"),
    "JSON": Good("entry.json", "Json-1.0-x86_64"),
    "metadata at a URL": Good(
        "{url}/files/plain.xml --name fetched", "fetched", integrity="transport"
    ),
    "metadata beside its image": Good("beside.xml", "Beside-1.0-x86_64"),
    "an ID": Good(
        "-u {marketplace} " + image_id("known"), "Known-1.0-x86_64", integrity="transport"
    ),
    "an ID like an option": Good(
        f"-u {{marketplace}} {DASHED_ID}", "Dashed-1.0-x86_64", integrity="transport"
    ),
    "an ID like an option, first": Good(
        f"{DASHED_ID} -n dashed-first --url {{marketplace}}",
        "dashed-first",
        integrity="transport",
    ),
    "an entry of a list": Good(
        f"-c list.json {HEPIX_ID}",
        "Hepix-0.3.4-i386",
        events=("list.unsigned", "list.expired"),
        properties={"version": "6.6.6", "glancing_identity": HEPIX_ID},
    ),
    "an entry of a signed list": Good(
        f"--cern-list list.smime {HEPIX_ID} -n entry-of-signed",
        "entry-of-signed",
        events=("list.signature_unchecked", "list.expired"),
    ),
    "a name of its own": Good("plain.xml -n own-name", "own-name"),
    # digests
    "one digest": Good(f"{LISTED} one-digest -s {digest('sha512', RAW)}", "one-digest"),
    "many digests": Good(f"{LISTED} many-digests -s ::{SUMS}::", "many-digests"),
    "upper case": Good(f"{LISTED} upper --sums {digest('md5', RAW).upper()}", "upper"),
    "a digest twice": Good(
        f"{LISTED} twice -s {digest('sha1', RAW)}:{digest('sha1', RAW)}", "twice"
    ),
    "only a weak digest": Good(
        f"{LISTED} weak -s {digest('sha1', RAW)}", "weak", events=("image.weakly_verified",)
    ),
    "a sums file": Good(f"{LISTED} sums-file -S SHA256SUMS", "sums-file"),
    "a sums file at a URL": Good(f"{LISTED} sums-url -S {{url}}/files/SHA256SUMS", "sums-url"),
    "several sums files": Good(
        f"{LISTED} sums-several -S SHA256SUMS -S SHA512SUMS --sums-files MD5SUMS", "sums-several"
    ),
    "-s before -S": Good(
        f"{LISTED} s-first -s {digest('sha256', RAW)} -S WRONGSUMS",
        "s-first",
        events=("digest.overridden",),
    ),
    "-S before metadata": Good(
        "badsum.xml -n S-first -S RAWSUMS", "S-first", events=("digest.overridden",)
    ),
    "-s before metadata": Good(
        f"badsum.xml -n s-over -s {digest('md5', RAW)}", "s-over", events=("digest.overridden",)
    ),
    "a digest that is demanded": Good(
        f"plain.xml -n demanded --require-digest sha512 -s {digest('sha256', RAW)}", "demanded"
    ),
    "no digest": Good(
        "undigested.xml", "Undigested-1.0-x86_64", integrity="none", events=UNVERIFIED
    ),
    "empty strings in metadata": Good("blank.xml", "Blank-1.0-x86_64"),
    "digests ignored": Good(
        "badsum.xml -n ignored -D", "ignored", integrity="none", events=UNVERIFIED
    ),
    "a wrong digest, forced": Good(
        f"{LISTED} forced-digest -f -s {wrong('sha256')}", "forced-digest", integrity="forced"
    ),
    "a wrong size, forced": Good(
        "badsize.xml -n forced-size --force", "forced-size", integrity="forced"
    ),
    # formats
    **{
        f"{name} bytes": Good(f"{name}.bin", name, data, disk_format, "none")
        for name, (disk_format, data) in FORMATS.items()
    },
    "the operator's format": Good(
        "cirros.xml -n as-qcow2 --disk-format qcow2", "as-qcow2", QCOW2, "qcow2"
    ),
    "the detected format": Good(
        "cirros.xml -n as-detected --disk-format detected", "as-detected", QCOW2, "qcow2"
    ),
    # compressions
    **{
        f"{name} data": Good(
            f"{{url}}/files/packed.{name} -n packed-{name}", f"packed-{name}", integrity="none"
        )
        for name in PACKED
    },
    "a published digest of a gz": Good(
        f"{{url}}/files/packed.gz -n gz-published -s {digest('sha256', PACKED['gz'])}",
        "gz-published",
    ),
    "an image digest of a gz": Good(
        f"{{url}}/files/packed.gz -n gz-image -s {digest('sha256', RAW)}", "gz-image"
    ),
    "compressed as declared": Good("gz.xml", "Gzipped-1.0-x86_64"),
    "of unknown length": Good("{url}/files/chunked.raw", "chunked", integrity="none"),
    # ways of working
    "spooled": Good("plain.xml -n spooled --spool", "spooled"),
    "spooled and unpacked": Good("gz.xml -n spooled-gz --spool --work-dir .", "spooled-gz"),
    "with more events": Good("plain.xml -n verbose -v", "verbose"),
}


# --- what cannot ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bad:
    """A command line of ``import`` that fails; ``says`` must stand in message or hint."""

    words: str
    kind: str
    says: tuple[str, ...]
    exit_code: int = 1


BAD: Mapping[str, Bad] = {
    "no such file": Bad("absent.raw", "not-found", ("absent.raw", "No such file")),
    "no such metadata": Bad("absent.xml", "not-found", ("absent.xml", "No such file")),
    "a folder": Bad(".", "not-found", ("not a regular file",)),
    "another scheme": Bad("ftp://images.example.org/x.img", "bad-list", ("ftp", "https://")),
    "no such image": Bad("{url}/absent.raw", "not-found", ("/absent.raw", "404")),
    "no such ID": Bad(f"-u {{marketplace}} {image_id('no')}", "not-found", (image_id("no"), "404")),
    "an unknown host": Bad("http://host.invalid/x.img", "unreachable", ("host.invalid", "unknown")),
    "an empty file": Bad("empty.raw", "empty", ("empty",)),
    "an empty body": Bad("{url}/empty -n x", "empty", ("empty",)),
    "an unnamed URL": Bad("{url}/", "bad-list", ("no image name", "name of its own")),
    # digests
    "a wrong digest": Bad(
        f"listed.raw -s {digest('md5', RAW)}:{wrong('sha256')}",
        "wrong-digest",
        ("sha256", wrong("sha256"), digest("sha256", RAW)),
    ),
    "a wrong digest in a file": Bad(
        "listed.raw -S WRONGSUMS", "wrong-digest", ("sha256", wrong("sha256"))
    ),
    "-s before metadata, and wrong": Bad(
        f"plain.xml -s {wrong('sha512')}", "wrong-digest", ("sha512", digest("sha512", RAW))
    ),
    "a wrong digest in metadata": Bad("badsum.xml", "wrong-digest", ("md5", digest("md5", RAW))),
    "a wrong size in metadata": Bad("badsize.xml", "wrong-size", ("700000", str(len(RAW)))),
    "a digest of unknown length": Bad("listed.raw -s abc", "bad-digest", ("abc", "3 digits"), 2),
    "no hexadecimal digits": Bad("listed.raw -s " + "x" * 32, "bad-digest", ("hexadecimal",), 2),
    "conflicting digests": Bad(
        f"listed.raw -s {wrong('md5')}:{digest('md5', RAW)}", "bad-digest", ("-s", "two", "md5"), 2
    ),
    "conflicting files": Bad(
        "listed.raw -S SHA256SUMS -S WRONGSUMS", "bad-digest", ("-S", "two", "sha256"), 2
    ),
    "not in the sums file": Bad(
        "listed.raw -S OTHERSUMS", "bad-digest", ("OTHERSUMS", "listed.raw", "unlisted.raw")
    ),
    "no such sums file": Bad("listed.raw -S absent", "bad-list", ("absent", "No such file"), 2),
    "no such sums URL": Bad("listed.raw -S {url}/absent", "not-found", ("/absent", "404")),
    "no digest, and one demanded": Bad(
        "listed.raw --require-digest any", "no-digest", ("any", "--sums")
    ),
    "a digest too weak": Bad(
        "sha1.xml --require-digest sha256", "no-digest", ("sha256", "--require-digest")
    ),
    "a bad digest in metadata": Bad("shortsum.xml", "bad-metadata", ("MD5", "123")),
    # metadata
    "HTML for metadata": Bad("html.xml", "bad-metadata", ("html.xml", "HTML")),
    "text for metadata": Bad("text.xml", "bad-metadata", ("text.xml", "neither XML nor JSON")),
    "entities": Bad("entities.xml", "bad-metadata", ("entities.xml", "document type")),
    "an error message": Bad("rmsg.json", "bad-metadata", ("no metadata with this identifier",)),
    "no location": Bad("nowhere.xml", "bad-metadata", ("nowhere.xml", "no location")),
    "a location of another scheme": Bad("ftp.xml", "bad-metadata", ("ftp", "https://")),
    "a remote location that is a path": Bad(
        "{url}/files/beside.xml", "bad-metadata", ("local.raw", "local files")
    ),
    "metadata of another image": Bad(
        f"-u {{marketplace}} {image_id('swapped')}",
        "bad-metadata",
        (image_id("swapped"), image_id("known")),
    ),
    # compressions
    "unknown compression": Bad("lzh.xml", "bad-compression", ("lzh", "bz2")),
    "compression that is none": Bad("notgz.xml", "bad-compression", ("gz", "uncompressed")),
    "compression not declared": Bad("notplain.xml", "bad-compression", ("gz", "uncompressed")),
    "two members": Bad("{url}/files/two.zip", "bad-compression", ("zip",)),
    "a cut archive": Bad("{url}/files/cut.gz", "bad-compression", ("gz",)),
    # formats
    "a qcow2 called raw": Bad(
        "cirros.xml", "format-mismatch", ("raw", "qcow2", "--disk-format qcow2", "detected")
    ),
    "a qcow2 called raw, forced": Bad("cirros.xml --force", "format-mismatch", ("--disk-format",)),
    "a raw image called qcow2": Bad(
        "listed.raw --disk-format qcow2", "format-mismatch", ("qcow2", "raw")
    ),
    "a backing file": Bad("unsafe.bin", "unsafe-format", ("qcow2",)),
    "a backing file, forced": Bad(
        "unsafe.xml -f --disk-format detected", "unsafe-format", ("qcow2",)
    ),
    # lists
    "no such entry": Bad("-c list.json absent", "bad-list", ("absent", HEPIX_ID)),
    "no such list": Bad(f"-c absent.json {HEPIX_ID}", "bad-list", ("absent.json",), 2),
    "no list": Bad(f"-c html.xml {HEPIX_ID}", "bad-list", ("html.xml",), 2),
    "a list at a URL": Bad(
        f"-c {{url}}/files/list.json {HEPIX_ID}", "config", ("not a local list", "verify"), 2
    ),
    # command lines
    "force and dry run": Bad("listed.raw -f -d", "usage", ("--force", "--dry-run"), 2),
    "no such option": Bad("listed.raw --absent", "usage", ("--absent", "--help"), 2),
    "no descriptor": Bad("-v", "usage", ("DESCRIPTOR",), 2),
    "no such work directory": Bad(
        "listed.raw --spool --work-dir absent", "config", ("absent", "work directory"), 2
    ),
    "no such backup directory": Bad("listed.raw -b absent", "config", ("absent", "backup"), 2),
}


# --- running them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder and a server with all that the tables name, and the program."""

    program: Program
    market: Marketplace

    def run(self, words: str) -> Run:
        places = {"url": self.market.origin, "marketplace": self.market.base}
        return self.program.run("import", *shlex.split(words.format(**places)))


def fill(folder: Path, market: Marketplace) -> None:
    """Put everything into its place: images and documents, as files and on the server."""
    found = {
        **documents(market.origin),
        **{f"{name}.bin": data for name, (_, data) in FORMATS.items()},
        **{f"packed.{name}": data for name, data in PACKED.items()},
        **dict.fromkeys(("local.raw", "listed.raw", "remote.raw", "with%20space.raw"), RAW),
        "empty.raw": b"",
        "unsafe.bin": images.qcow2(backing_file=True),
        "two.zip": zipped(RAW, RAW),
        "cut.gz": PACKED["gz"][:-100],
    }
    for name, data in found.items():
        (folder / name).write_bytes(data)
    market.files |= {f"/files/{name}": data for name, data in found.items()}
    market.files |= {
        "/raw": RAW,
        "/qcow2": QCOW2,
        "/unsafe": found["unsafe.bin"],
        "/packed.gz": PACKED["gz"],
        "/empty": b"",
        "/files/chunked.raw": Served(RAW, chunked=True),
    }
    for title, identifier in (("Known", image_id("known")), ("Dashed", DASHED_ID)):
        entry = metadata(
            RAW, market.url("/raw"), {"slterms:os": title, "dcterms:identifier": identifier}
        )
        market.files[f"{BASE}/{identifier}"] = entry
    market.files[f"{BASE}/{image_id('swapped')}"] = market.files[f"{BASE}/{image_id('known')}"]


@pytest.fixture(scope="module")
def scene(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    empty(stock)
    folder = tmp_path_factory.mktemp("import")
    with Marketplace({}) as market:
        fill(folder, market)
        yield Scene(Program(folder, stock.sandbox.member.environ()), market)


Runs = Mapping[str, "Future[Run]"]


@pytest.fixture(scope="module")
def runs(scene: Scene) -> Runs:
    """All command lines of both tables, several at once: no two are about the same name."""
    table: dict[str, Good | Bad] = {**GOOD, **BAD}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return {case: threads.submit(scene.run, table[case].words) for case in table}


@pytest.mark.parametrize("case", GOOD)
def test_what_can_be_imported(case: str, runs: Runs, stock: Shelf) -> None:
    wanted, run = GOOD[case], runs[case].result()
    assert run.exit_code == 0, run.output
    row, image = run.row, stock.named(wanted.name)
    assert (row["name"], row["outcome"], row["decision"]) == (wanted.name, "uploaded", "upload")
    assert row["image_id"] == image["id"]
    assert row["size_bytes"] == image["size"] == len(wanted.data)
    assert row["disk_format"] == image["disk_format"] == wanted.disk_format
    assert row["digests"]["sha512"] == image["os_hash_value"] == digest("sha512", wanted.data)
    assert image["checksum"] == digest("md5", wanted.data)
    assert row["integrity"] == image["glancing_integrity"] == wanted.integrity
    assert (image["status"], image["visibility"], image["os_hidden"]) == ("active", "shared", False)
    assert image["glancing_state"] == "current" and "glancing" in image["tags"]
    assert "glancing_deadline" not in image
    assert {key: image.get(key) for key in wanted.properties} == wanted.properties
    assert not [name for name in wanted.events if not run.named(name)], run.output
    assert bool(run.named("image.unverified")) == (wanted.integrity == "none")


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_imported(case: str, runs: Runs) -> None:
    wanted, run = BAD[case], runs[case].result()
    assert run.exit_code == wanted.exit_code, run.output
    error = run.result["error"] if wanted.exit_code == 2 else run.row["error"]
    assert error["kind"] == wanted.kind, run.output
    told = f"{error['message']} {error['hint']}"
    assert not [words for words in wanted.says if words not in told], told
    (event,) = (event for event in run.events if event["level"] == "error")
    assert (event["kind"], event["error"]) == (error["kind"], error["message"])


def test_only_what_was_verified_is_in_glance(runs: Runs, stock: Shelf) -> None:
    assert len(runs) == len(GOOD) + len(BAD)
    assert stock.names() == sorted(good.name for good in GOOD.values())
    assert stock.incoming() == []


def test_a_spool_is_removed(runs: Runs, scene: Scene) -> None:
    assert runs["spooled and unpacked"].result().named("image.spooled")
    assert list(scene.program.cwd.glob("glancing-*")) == []


def test_what_was_forced_is_said(runs: Runs) -> None:
    for case, said in (
        ("a wrong digest, forced", f"sha256 of the image: expected {wrong('sha256')}"),
        ("a wrong size, forced", "size of the image: expected 700000 bytes"),
    ):
        (mismatch, *_) = runs[case].result().row["mismatched"]
        assert said in mismatch.replace("published file or the ", "")
        (event,) = runs[case].result().named("image.uploaded")
        assert event["mismatched"] == runs[case].result().row["mismatched"]


def test_which_side_of_a_compressed_file_matched_is_said(runs: Runs) -> None:
    matched = {
        case: runs[case].result().row["matched"] for case in runs if case.endswith("of a gz")
    }
    assert matched == {
        "a published digest of a gz": ["sha256 of the published file"],
        "an image digest of a gz": ["sha256 of the image"],
    }


# --- one after the other --------------------------------------------------------------------------


@pytest.fixture
def market() -> Iterator[Marketplace]:
    with Marketplace({}) as market:
        yield market


def write(glancing: Program, name: str, data: bytes) -> Path:
    path = glancing.cwd / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("sums", [True, False], ids=["with a digest", "without one"])
def test_a_second_import_of_the_same_bytes_changes_nothing(
    glancing: Program, shelf: Shelf, sums: bool
) -> None:
    proof = ["-s", digest("sha256", RAW)] if sums else []
    words = ["import", str(write(glancing, "disk.raw", RAW)), *proof]
    first, second = glancing.run(*words), glancing.run(*words)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert (first.row["outcome"], second.row["outcome"]) == ("uploaded", "unchanged")
    assert first.row["image_id"] == second.row["image_id"] == shelf.named("disk")["id"]
    assert shelf.names() == ["disk"]


def test_other_bytes_replace_and_leave_a_backup(glancing: Program, shelf: Shelf) -> None:
    path = write(glancing, "disk.raw", RAW)
    first = glancing.run("import", path)
    path.write_bytes(OTHER)
    second = glancing.run("import", path)
    assert second.exit_code == 0 and second.row["outcome"] == "replaced"
    assert shelf.names() == ["disk", "disk_old"]
    assert shelf.data("disk") == OTHER and shelf.data("disk_old") == RAW
    old = shelf.named("disk_old")
    assert old["id"] == first.row["image_id"] == second.row["backup_id"]
    assert old["os_hidden"] and old["glancing_state"] == "backup"


def test_a_failed_replacement_leaves_the_old_image_as_it_was(
    glancing: Program, shelf: Shelf
) -> None:
    path = write(glancing, "disk.raw", RAW)
    glancing.run("import", path)
    before = shelf.all()
    path.write_bytes(OTHER)
    run = glancing.run("import", path, "-s", wrong("sha256"))
    assert run.exit_code == 1 and run.row["error"]["kind"] == "wrong-digest"
    assert shelf.all() == before


def test_a_backup_is_also_copied_to_a_directory(glancing: Program, shelf: Shelf) -> None:
    backups = glancing.cwd / "backups"
    backups.mkdir()
    path, name = write(glancing, "disk.raw", RAW), "a name/with ümlaut"
    first = glancing.run("import", path, "-n", name, "-b", backups)
    assert first.row["backup_path"] is None and list(backups.iterdir()) == []
    path.write_bytes(OTHER)
    run = glancing.run("import", path, "-n", name, "-b", backups)
    (copy,) = backups.iterdir()
    assert run.row["backup_path"] == str(copy)
    assert copy.name == f"a%20name%2Fwith%20%C3%BCmlaut_{first.row['image_id']}.raw"
    assert copy.read_bytes() == RAW
    assert run.named("backup.written")[0]["image_id"] == first.row["image_id"]
    assert shelf.data(name) == OTHER


def test_an_image_of_another_tool_is_replaced_by_name_and_not_otherwise_changed(
    glancing: Program, shelf: Shelf
) -> None:
    shelf.put("disk", RAW, favourite="yes", visibility="private")
    bystander = shelf.put("other", RAW)
    path = write(glancing, "disk.raw", OTHER)
    assert glancing.run("import", path).row["outcome"] == "replaced"
    new = shelf.named("disk")
    assert (new["favourite"], new["visibility"]) == ("yes", "private")
    assert shelf.data("disk_old") == RAW
    assert shelf.get(bystander["id"]) == bystander


def test_a_kept_file_is_named_in_the_result(glancing: Program, shelf: Shelf) -> None:
    work = glancing.cwd / "work"
    work.mkdir()
    packed = write(glancing, "disk.raw.gz", PACKED["gz"])
    run = glancing.run("import", packed, "-k", "--work-dir", work)
    (kept,) = work.iterdir()
    assert run.exit_code == 0 and run.row["kept_path"] == str(kept)
    assert kept.read_bytes() == RAW == shelf.data("disk.raw")


def test_what_was_imported_from_metadata_is_skipped_by_sync(
    glancing: Program, shelf: Shelf, market: Marketplace
) -> None:
    identifier = market.publish("alpine", RAW, title="os-1.0-x86_64", fields={"slterms:os": "os"})
    assert glancing.run("import", identifier, "-u", market.base).exit_code == 0
    image = shelf.named("os-1.0-x86_64")
    assert (image["mpid"], image["version"]) == (identifier, "1")
    write(glancing, "list", identifier.encode())
    run = glancing.run("sync", "-l", "list", "-u", market.base)
    assert run.outcomes == {"os-1.0-x86_64": "unchanged"}
    assert shelf.all() == [image]


# --- dry runs -------------------------------------------------------------------------------------


def test_a_dry_run_without_any_cloud_verifies(market: Marketplace, tmp_path: Path) -> None:
    market.files["/disk.raw"] = RAW
    program, url = Program(tmp_path), market.url("/disk.raw")
    good = program.run("import", "-d", url, "-s", digest("sha256", RAW))
    assert good.exit_code == 0 and good.row["outcome"] == "planned"
    assert good.row["digests"]["sha512"] == digest("sha512", RAW)
    assert good.row["integrity"] == "published" and good.row["image_id"] is None
    assert good.named("glance.not_consulted")
    bad = program.run("import", "-d", url, "-s", wrong("sha256"))
    assert bad.exit_code == 1 and bad.row["error"]["kind"] == "wrong-digest"


def test_a_dry_run_changes_nothing_in_glance(
    glancing: Program, shelf: Shelf, market: Marketplace
) -> None:
    shelf.put("disk", RAW)
    market.files["/disk.raw"] = OTHER
    before, asked = shelf.all(), len(shelf.sandbox.glance_requests())
    good = glancing.run("import", "-d", market.url("/disk.raw"), "-s", digest("md5", OTHER))
    assert good.exit_code == 0
    assert (good.row["decision"], good.row["outcome"]) == ("replace", "planned")
    assert good.row["size_bytes"] == len(OTHER)
    assert not good.named("glance.not_consulted")
    bad = glancing.run("import", "-d", market.url("/disk.raw"), "-s", wrong("md5"))
    assert bad.exit_code == 1 and bad.row["error"]["kind"] == "wrong-digest"
    assert {request.method for request in shelf.sandbox.glance_requests()[asked:]} == {"GET"}
    assert shelf.all() == before


def test_a_dry_run_may_keep_what_it_read(glancing: Program, shelf: Shelf) -> None:
    path = write(glancing, "disk.raw", RAW)
    run = glancing.run("import", "-d", "-k", "--work-dir", ".", path)
    assert run.exit_code == 0 and shelf.all() == []
    assert (glancing.cwd / run.row["kept_path"]).read_bytes() == RAW


# --- variables ------------------------------------------------------------------------------------


def test_variables_say_what_flags_say_and_flags_win(glancing: Program, shelf: Shelf) -> None:
    path = write(glancing, "disk.raw", RAW)
    variables = {"GLANCING_NAME": "from-variable", "GLANCING_REQUIRE_DIGEST": "any"}
    refused = glancing.run("import", path, **variables)
    assert refused.exit_code == 1 and refused.row["error"]["kind"] == "no-digest"
    variables |= {"GLANCING_SUMS": digest("md5", RAW)}
    assert glancing.run("import", path, **variables).row["name"] == "from-variable"
    assert glancing.run("import", path, "-n", "from-flag", **variables).row["name"] == "from-flag"
    assert shelf.names() == ["from-flag", "from-variable"]
