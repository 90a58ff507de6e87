"""Signed lists and checksum files with the whole program, over real HTTPS into the real Glance.

Faults 34 and 35: of a list that is expired, dated in the future, older than one that was seen, not
signed or wrongly signed, nothing is done; and nothing that was there before is touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pysequoia import SignatureMode, Tsk, sign

from tests import images, pki
from tests.imagelist_documents import HEPIX_LIST, hepix
from tests.pki import Signer
from tests.program import Program, Run
from tests.servers import Authority, ImageServer
from tests.shelf import Shelf

OLD, NEW, OTHER = (images.raw(64 * 1024 + 512 * number) for number in range(3))
LIST_ID = HEPIX_LIST["dc:identifier"]
TODAY = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whoever endorses lists, a colleague certified by the same authority, and their server."""

    server: ImageServer
    authority: pki.Authority
    endorser: Signer
    colleague: Signer

    @property
    def trust(self) -> tuple[str, ...]:
        """What an operator says of this publisher."""
        ca_dir, dn, ca = self.authority.directory, self.endorser.dn, self.endorser.ca
        words = ("--ca-dir", ca_dir, "--endorser-dn", dn, "--endorser-ca", ca, "--list-id", LIST_ID)
        return tuple(map(str, words))

    def entry(self, name: str, data: bytes, version: str = "1", **fields: Any) -> dict[str, Any]:
        """An image that is served, as a list describes it."""
        self.server.files[f"/{name}.img"] = data
        return {
            "dc:identifier": f"00000000-0000-0000-0000-{name}",
            "dc:title": name,
            "hv:uri": self.url(f"{name}.img"),
            "hv:size": str(len(data)),
            "hv:version": version,
            "sl:checksum:sha512": hashlib.sha512(data).hexdigest(),
            "sl:checksum:md5": "",
            **fields,
        }

    def document(
        self, *entries: Mapping[str, Any], created: datetime = TODAY - 9 * DAY, **fields: Any
    ) -> bytes:
        names = {"hv:dn": self.endorser.dn, "hv:ca": self.endorser.ca}
        times = {"dc:date:created": created.isoformat(), "dc:date:expires": "2099-01-01T00:00:00Z"}
        return hepix(*entries, **{**times, "hv:endorser": {"hv:x509": names}, **fields})

    def publish(self, *entries: Mapping[str, Any], created: datetime = TODAY - 9 * DAY) -> None:
        """Sign a list and serve it."""
        self.server.files["/list"] = self.signed(*entries, created=created)

    def signed(self, *entries: Mapping[str, Any], created: datetime = TODAY - 9 * DAY) -> bytes:
        return pki.signed(self.document(*entries, created=created), self.endorser)

    def url(self, path: str) -> str:
        return self.server.url(f"/{path}")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[pki.Authority, Signer, Signer]:
    authority = pki.Authority(tmp_path_factory.mktemp("grid"))
    return authority, authority.signer(), authority.signer("/DC=org/DC=example/CN=Colleague")


@pytest.fixture
def publisher(tls: Authority, grid: tuple[pki.Authority, Signer, Signer]) -> Iterator[Publisher]:
    with ImageServer({}, tls=tls.server()) as server:
        yield Publisher(server, *grid)


@pytest.fixture
def sync(glancing: Program, tls: Authority) -> Program:
    trusted = {"SSL_CERT_FILE": str(tls.file)}
    return replace(glancing, environ={**glancing.environ, **trusted})


def run(program: Program, publisher: Publisher, *more: str) -> Run:
    return program.run("sync", "-l", publisher.url("list"), *publisher.trust, *more)


# --- HEPiX lists ----------------------------------------------------------------------------------


def test_a_signed_list_is_followed_and_an_old_copy_of_it_is_not(
    sync: Program, shelf: Shelf, publisher: Publisher
) -> None:
    """Fault 34: the old copy is well signed, and still it changes nothing."""
    publisher.publish(publisher.entry("web", OLD), created=TODAY - 9 * DAY)
    old_copy = publisher.server.files["/list"]
    first = run(sync, publisher)
    assert (first.outcomes, first.row["integrity"]) == ({"web": "uploaded"}, "published")
    [event] = first.named("list.signature_verified")
    assert (event["signer"], event["algorithm"]) == (publisher.endorser.dn, "sha256")
    assert run(sync, publisher).outcomes == {"web": "unchanged"}
    publisher.publish(publisher.entry("web", NEW, "2"), created=TODAY - DAY)
    assert run(sync, publisher).outcomes == {"web": "replaced"}
    publisher.server.files |= {"/list": old_copy, "/web.img": OLD}
    replayed = run(sync, publisher)
    assert replayed.exit_code == 1
    assert (replayed.row["outcome"], replayed.row["error"]["kind"]) == ("refused", "downgrade")
    assert (shelf.data("web"), shelf.data("web_old")) == (NEW, OLD)


def test_an_old_copy_does_not_bring_back_an_image_without_a_version(
    sync: Program, shelf: Shelf, publisher: Publisher
) -> None:
    """Fault 34."""
    publisher.publish(publisher.entry("web", NEW, ""), created=TODAY - DAY)
    run(sync, publisher)
    publisher.publish(publisher.entry("web", OLD, ""), publisher.entry("gone", OTHER))
    assert set(run(sync, publisher).outcomes.values()) == {"refused"}
    assert shelf.names() == ["web"] and shelf.data("web") == NEW


ANOTHER: dict[str, Any] = {"dc:identifier": "other"}
EXPIRED: dict[str, Any] = {"dc:date:expires": (TODAY - DAY).isoformat()}
Making = Callable[[Publisher, dict[str, Any]], bytes]
REFUSED: Mapping[str, tuple[str, str, Making]] = {
    "changed byte": (
        "bad-signature",
        "content verify error",
        lambda p, e: pki.signed(p.document(e), p.endorser).replace(b"web", b"bad", 1),
    ),
    "another signer of the authority": (
        "bad-signature",
        "hv:dn",
        lambda p, e: pki.signed(p.document(e), p.colleague),
    ),
    "another endorser of the authority": (
        "bad-signature",
        "not by the one that was asked for",
        lambda p, e: Publisher(p.server, p.authority, p.colleague, p.endorser).signed(e),
    ),
    "two signers": (
        "bad-signature",
        "2 signers",
        lambda p, e: pki.signed(p.document(e), p.endorser, p.colleague),
    ),
    "not signed": ("bad-signature", "not signed", lambda p, e: p.document(e)),
    "another list": (
        "bad-list",
        "dc:identifier",
        lambda p, e: pki.signed(p.document(e, **ANOTHER), p.endorser),
    ),
    "expired": (
        "bad-list",
        "expired",
        lambda p, e: pki.signed(p.document(e, **EXPIRED), p.endorser),
    ),
    "dated in the future": (
        "bad-list",
        "future",
        lambda p, e: pki.signed(p.document(e, created=TODAY + DAY), p.endorser),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_done_of_a_list_that_does_not_count(
    sync: Program, shelf: Shelf, publisher: Publisher, name: str
) -> None:
    """Fault 35: alone it ends the run, among others it is a failed row."""
    kind, word, make = REFUSED[name]
    shelf.put("web", OLD)
    publisher.server.files["/list"] = make(publisher, publisher.entry("web", NEW))
    alone = run(sync, publisher)
    assert (alone.exit_code, alone.result["error"]["kind"]) == (2, kind)
    assert word in alone.result["error"]["message"]
    good = publisher.entry("good", OTHER)
    publisher.server.files["/other"] = pki.signed(publisher.document(good), publisher.endorser)
    both = run(sync, publisher, "-l", publisher.url("other"))
    assert both.exit_code == 1
    assert both.row_of(publisher.url("list"))["error"]["kind"] == kind
    assert shelf.names() == ["good", "web"] and shelf.data("web") == OLD


def test_a_local_list_counts_no_more_than_one_that_was_fetched(
    sync: Program, shelf: Shelf, publisher: Publisher
) -> None:
    document = publisher.document(publisher.entry("web", OLD))
    (sync.cwd / "list").write_bytes(document)
    (sync.cwd / "vmlist").write_text("")
    words = ("sync", "-l", "vmlist", "-l", "list", *publisher.trust)
    refused = sync.run(*words)
    assert (refused.exit_code, refused.result["error"]["kind"]) == (2, "bad-signature")
    allowed = sync.run(*words, "--allow-unsigned-list")
    assert allowed.outcomes == {"web": "uploaded"} and allowed.named("list.unsigned")
    assert shelf.data("web") == OLD


def test_an_expired_image_is_a_failed_row_and_the_others_go_on(
    sync: Program, shelf: Shelf, publisher: Publisher
) -> None:
    """Fault 34: and what is in Glance of it stays."""
    publisher.publish(publisher.entry("web", OLD), created=TODAY - 9 * DAY)
    run(sync, publisher)
    expired, good = publisher.entry("web", NEW, "2", **EXPIRED), publisher.entry("good", OTHER)
    publisher.publish(expired, good, created=TODAY - 2 * DAY)
    later = run(sync, publisher)
    assert later.exit_code == 1
    row = later.row_of(expired["dc:identifier"])
    assert row["outcome"] == "failed" and "has expired" in row["error"]["message"]
    assert shelf.names() == ["good", "web"] and shelf.data("web") == OLD


def test_settings_by_variables_and_any_signer_of_the_authorities(
    sync: Program, shelf: Shelf, publisher: Publisher
) -> None:
    publisher.publish(publisher.entry("web", OLD))
    found = sync.run(
        "plan",
        GLANCING_VMLIST=publisher.url("list"),
        GLANCING_CA_DIR=str(publisher.authority.file),
        GLANCING_FORMAT="hepix",
    )
    assert found.outcomes == {"web": "planned"} and shelf.all() == []
    assert found.named("list.any_endorser_accepted")


# --- checksum files -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keys:
    """A distribution's key, in a keyring file, and a stranger's key."""

    ring: Path
    distribution: Tsk
    stranger: Tsk


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    ring = tmp_path_factory.mktemp("keys") / "ring.gpg"
    distribution = Tsk.generate("Distribution <images@example.org>")
    ring.write_bytes(bytes(distribution.extract_certificate()))
    return Keys(ring, distribution, Tsk.generate("Stranger"))


def sums_of(data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  web.img\n".encode()


def beside(key: Tsk, data: bytes) -> bytes:
    return sign(key.signer(), data, mode=SignatureMode.DETACHED, armor=False)


def test_a_signed_checksum_file_lets_its_image_in(
    sync: Program, shelf: Shelf, publisher: Publisher, keys: Keys
) -> None:
    """Fault 35: and a changed one does not, whatever the image is."""
    files = publisher.server.files
    files |= {"/web.img": OLD, "/SHA256SUMS": sums_of(OLD)}
    files["/SHA256SUMS.sign"] = beside(keys.distribution, sums_of(OLD))
    words = ("--keyring", keys.ring, "-S", publisher.url("SHA256SUMS"))
    first = sync.run("import", publisher.url("web.img"), *words)
    assert (first.outcomes, first.row["integrity"]) == ({"web": "uploaded"}, "published")
    [event] = first.named("list.signature_verified")
    assert event["list"] == publisher.url("SHA256SUMS")
    files |= {"/web.img": NEW, "/SHA256SUMS": sums_of(NEW)}
    second = sync.run("import", publisher.url("web.img"), *words)
    assert (second.exit_code, second.row["error"]["kind"]) == (1, "bad-signature")
    assert shelf.names() == ["web"] and shelf.data("web") == OLD


def test_checksum_files_of_a_list(
    sync: Program, shelf: Shelf, publisher: Publisher, keys: Keys
) -> None:
    """Fault 35: clear-signed by the distribution, by a stranger, and not at all."""
    files = publisher.server.files
    files |= {f"/{folder}/web.img": OLD for folder in "abc"}
    files["/a/SUMS"] = sign(keys.distribution.signer(), sums_of(OLD), mode=SignatureMode.CLEAR)
    files["/b/SUMS"] = sign(keys.stranger.signer(), sums_of(OLD), mode=SignatureMode.CLEAR)
    files["/c/SUMS"] = sums_of(OLD)
    lines = [
        f"{publisher.url(f'{folder}/web.img')} name={folder} sums={publisher.url(f'{folder}/SUMS')}"
        for folder in "abc"
    ]
    (sync.cwd / "vmlist").write_text("\n".join(lines))
    found = sync.run("sync", "-l", "vmlist", "--keyring", keys.ring)
    assert [row["outcome"] for row in found.rows] == ["uploaded", "failed", "failed"]
    refusals = found.named("list.signature_refused")
    assert {event["check"] for event in refusals} == {"signer", "unsigned"}
    assert shelf.names() == ["a"]


def test_a_keyring_without_a_key_ends_the_run(sync: Program, publisher: Publisher) -> None:
    (sync.cwd / "empty.gpg").write_bytes(b"")
    publisher.server.files |= {"/web.img": OLD, "/SHA256SUMS": sums_of(OLD)}
    words = ("-S", publisher.url("SHA256SUMS"), "--keyring", "empty.gpg")
    found = sync.run("import", publisher.url("web.img"), *words)
    assert (found.exit_code, found.result["error"]["kind"]) == (2, "config")
    assert publisher.server.connections == 0


# --- simplestreams --------------------------------------------------------------------------------


def stream(path: str) -> bytes:
    entry = {"datatype": "image-downloads", "path": path}
    return json.dumps({"format": "index:1.0", "index": {"org.example": entry}}).encode()


def products_of(data: bytes) -> bytes:
    item = {"ftype": "disk.img", "path": "disk.img", "sha256": hashlib.sha256(data).hexdigest()}
    product = {"versions": {"20260101": {"pubname": "tiny", "items": {"disk": item}}}}
    return json.dumps({"format": "products:1.0", "products": {"tiny": product}}).encode()


@pytest.mark.parametrize("how", ["good", "another's", "changed", "unsigned"])
def test_what_a_signed_stream_leads_to_is_signed_as_well(
    sync: Program, shelf: Shelf, publisher: Publisher, keys: Keys, how: str
) -> None:
    """Fault 35: a start that is signed is worth nothing when its products are not."""
    disk = images.qcow2()
    content = products_of(disk)
    key = keys.stranger if how == "another's" else keys.distribution
    signed = sign(key.signer(), content, mode=SignatureMode.CLEAR)
    changed = signed.replace(b"20260101", b"20270101") if how == "changed" else signed
    index = sign(keys.distribution.signer(), stream("streams/v1/p.sjson"), mode=SignatureMode.CLEAR)
    publisher.server.files |= {
        "/streams/v1/index.sjson": index,
        "/streams/v1/p.sjson": content if how == "unsigned" else changed,
        "/disk.img": disk,
    }
    words = ("sync", "-l", publisher.url("streams/v1/index.sjson"), "--keyring", keys.ring)
    found = sync.run(*words)
    if how == "good":
        assert found.outcomes == {"tiny-disk": "uploaded"} and shelf.names() == ["tiny-disk"]
        return
    assert (found.exit_code, found.row["error"]["kind"]) == (1, "bad-signature")
    assert shelf.all() == []


def test_a_signed_stream_needs_a_keyring(sync: Program, publisher: Publisher, keys: Keys) -> None:
    """Fault 35: nobody looked at its signature."""
    index = sign(keys.distribution.signer(), stream("streams/v1/p.json"), mode=SignatureMode.CLEAR)
    publisher.server.files["/streams/v1/index.sjson"] = index
    found = sync.run("sync", "-l", publisher.url("streams/v1/index.sjson"))
    assert (found.exit_code, found.result["error"]["kind"]) == (2, "bad-signature")
