"""What a reference into an OCI registry means, and what its manifest says."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import parse_need
from glancing.imagelist.oci import Reference, need
from glancing.model import Digest, Expected, Need, NeedKind, Origin, Parsed, Spec, Url
from tests.registry import Document, layer, manifest

DATA = b"a disk"
DIGEST = sha256(DATA).hexdigest()
ORIGIN = Origin(1, 2, "vmlist")
REFERENCE = "oci://registry.example.org/vm/tiny:22.04"


def read(document: Document | bytes, reference: str = REFERENCE) -> Parsed:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_need(data, need(reference, ORIGIN))


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        pytest.param(REFERENCE, "manifest", "vm/tiny/manifests/22.04", id="a tag"),
        pytest.param(REFERENCE[:-6], "manifest", "vm/tiny/manifests/latest", id="no tag"),
        pytest.param(
            f"{REFERENCE[:-6]}@sha256:{DIGEST}",
            "manifest",
            f"vm/tiny/manifests/sha256:{DIGEST}",
            id="a digest",
        ),
        pytest.param(f"{REFERENCE[:-6]}:2?.*", "tags", "vm/tiny/tags/list", id="a pattern"),
    ],
)
def test_references(text: str, kind: str, location: str) -> None:
    found = need(text, ORIGIN)
    assert found.kind == NeedKind(f"oci-{kind}")
    assert str(found.location) == f"https://registry.example.org/v2/{location}"


@pytest.mark.parametrize(
    "text",
    [
        "oci://h",
        "oci:///a",
        "oci://h/A",
        "oci://h/a/../b",
        "oci://u:pw@h/a",
        "oci://h/a?x=pw",
        "oci://h/a:b/c",
        "oci://h/a@sha256:12",
        f"oci://h/a:b@sha256:{DIGEST}",
        "oci://h/a//b",
        "oci://h/a:-x",
    ],
)
def test_texts_that_are_no_reference(text: str) -> None:
    """Fault 15: nothing of a reference gets out of its registry and repository."""
    with pytest.raises(ImageListError, match="no reference"):
        Reference.parse(text)


def test_the_one_layer_is_the_image() -> None:
    notes = {
        "org__openstack__glance__disk_format": "qcow2",
        "org__openstack__glance__container_format": "bare",
        "org__openstack__glance__os_distro": "tiny",
        "org__openstack__glance__visibility": "public",
        "eu__egi__cloud__tag": "22.04",
        "org__opencontainers__image__title": "tiny.qcow2",
    }
    (spec,) = read(manifest(layer(DATA, **notes))).specs
    assert spec == Spec(
        name="tiny-22.04",
        identity=REFERENCE,
        descriptor=REFERENCE,
        origin=ORIGIN,
        sources=(Url(f"https://registry.example.org/v2/vm/tiny/blobs/sha256:{DIGEST}"),),
        expected=Expected(
            published=(Digest("sha256", DIGEST),), published_size_bytes=6, disk_format="qcow2"
        ),
        properties={"os_distro": "tiny", "eu.egi.cloud.tag": "22.04"},
    )


def test_one_disk_among_several_layers() -> None:
    other = layer(b"notes", "text/plain")
    (spec,) = read(manifest(other, layer(DATA))).specs
    assert spec.expected.digests == (Digest("sha256", DIGEST),)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param(b"<html>", "not proper JSON", id="a web page"),
        pytest.param([], "not a JSON object", id="no object"),
        pytest.param({"layers": []}, "has 0 layers", id="no layer"),
        pytest.param(manifest(layer(DATA), layer(b"x")), "2 disks", id="two disks"),
        pytest.param({"manifests": []}, "an index of several", id="an index"),
        pytest.param(manifest({**layer(DATA), "digest": ""}), "no digest", id="no digest"),
        pytest.param(manifest({**layer(DATA), "digest": "sha256:12"}), "bad sha256", id="short"),
        pytest.param(manifest({**layer(DATA), "size": 0}), "no image is empty", id="empty"),
        pytest.param(manifest({**layer(DATA), "annotations": 3}), "annotations", id="no notes"),
        pytest.param({"layers": "x"}, "not a JSON array", id="layers are a text"),
    ],
)
def test_manifests_that_are_refused(document: Document | bytes, message: str) -> None:
    with pytest.raises(ImageListError, match=message) as caught:
        read(document)
    assert caught.value.kind in (ErrorKind.BAD_METADATA, ErrorKind.BAD_DIGEST)


def test_a_manifest_named_by_its_digest_has_it() -> None:
    """Fault 29: what a registry gives in place of it is refused."""
    data = json.dumps(manifest(layer(DATA))).encode()
    reference = f"oci://registry.example.org/vm/tiny@sha256:{sha256(data).hexdigest()}"
    assert read(data, reference).specs[0].name == "tiny"
    with pytest.raises(ImageListError) as caught:
        read(data + b" ", reference)
    assert caught.value.kind is ErrorKind.WRONG_DIGEST


def tags(asked: Need, *names: str) -> Parsed:
    return parse_need(json.dumps({"tags": names}).encode(), asked)


def test_tags_are_asked_for_until_a_page_tells_nothing_new() -> None:
    """Whatever a registry takes for a page; a pattern that fits none leads to nothing."""
    first = tags(need("oci://h/a:2*", ORIGIN), "1", "2.0", "2.1")
    *found, page = first.needs
    assert [str(each.location) for each in found] == [
        "https://h/v2/a/manifests/2.0",
        "https://h/v2/a/manifests/2.1",
    ]
    assert isinstance(page.location, Url) and page.location.full.endswith("&last=2.1")
    assert tags(page, "2.1", "2.0") == Parsed()
    (again,) = tags(page, "3", "bad tag", "../x").needs
    assert again.kind is NeedKind.OCI_TAGS
