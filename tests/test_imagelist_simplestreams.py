"""simplestreams: what an index leads to, which items are wanted, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancing.errors import ImageListError
from glancing.imagelist import parse_list
from glancing.model import (
    Digest,
    Expected,
    Filter,
    ListContext,
    ListFormat,
    LocalPath,
    NeedKind,
    Origin,
    Parsed,
    Reading,
    Spec,
    Url,
)

ROOT = "https://mirror.example.org/releases/"
MARKETPLACE = Url("https://marketplace.example.org/metadata")
ORIGIN = Origin(1, 0, "the stream")
SHA256 = "ab" * 32
ITEM: Mapping[str, Any] = {
    "ftype": "disk1.img",
    "path": "server/24.04/disk1.img",
    "size": "1000",
    "sha256": SHA256,
    "md5": "",
}


def context(place: str = f"{ROOT}streams/v1/index.json", **reading: Any) -> ListContext:
    conditions = tuple(map(Filter.parse, reading.pop("filters", ())))
    return ListContext(
        Url(place), ORIGIN, MARKETPLACE, reading=Reading(filters=conditions, **reading)
    )


def index(**entries: Any) -> bytes:
    return json.dumps({"format": "index:1.0", "index": entries}).encode()


def products(serials: Mapping[str, Any], **product: Any) -> bytes:
    """A document of one product with these items by serial."""
    versions = {serial: {"items": items} for serial, items in serials.items()}
    said = {"arch": "amd64", "os": "tiny", "release": "noble", "version": "24.04", **product}
    whole = {"format": "products:1.0", "content_id": "org.example:download"}
    return json.dumps(
        {**whole, "products": {"org.tiny:24.04": {**said, "versions": versions}}}
    ).encode()


def read(data: bytes, **reading: Any) -> Parsed:
    return parse_list(data, context(**reading))


# --- the index ------------------------------------------------------------------------------------


def test_an_index_leads_to_the_products_of_images() -> None:
    images = {"datatype": "image-downloads", "path": "streams/v1/images.json"}
    ids = {"datatype": "image-ids", "path": "streams/v1/ids.json"}
    (need,) = read(index(**{"org.example:download": images, "org.example:ids": ids})).needs
    assert str(need.location) == f"{ROOT}streams/v1/images.json" and need.kind is NeedKind.LIST
    assert need.context is not None and need.context.location == need.location


def test_a_filter_on_the_content_spares_documents() -> None:
    entries = {
        name: {"datatype": "image-downloads", "path": f"streams/v1/{name}.json"}
        for name in ("released", "daily")
    }
    (need,) = read(index(**entries), filters=["content_id=daily"]).needs
    assert need.descriptor == "daily"


BAD_PATHS = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "https://evil/x",
    "file:///x",
    "a//b",
    "a\\b",
    "",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_no_path_leaves_the_mirror(path: object) -> None:
    """Fault 15: neither of an index nor of an item."""
    entry = {"datatype": "image-downloads", "path": path}
    for parsed in (read(index(x=entry)), read(products({"1": {"a": {**ITEM, "path": path}}}))):
        assert not parsed.needs and not parsed.specs
        (problem,) = parsed.problems
        assert "path" in problem.message


# --- items ----------------------------------------------------------------------------------------


def test_an_item_is_an_image() -> None:
    data = products({"20260101": {"disk1.img": ITEM}}, pubname="tiny-24.04-amd64")
    (spec,) = read(data, newest=1).specs
    assert spec == Spec(
        name="tiny-24.04-amd64-disk1.img",
        identity="org.example:download:org.tiny:24.04:disk1.img",
        descriptor="org.example:download:org.tiny:24.04:20260101:disk1.img",
        origin=replace(ORIGIN, line=1),
        sources=(Url(f"{ROOT}server/24.04/disk1.img"),),
        expected=Expected(
            published=(Digest("sha256", SHA256),), published_size_bytes=1000, disk_format="qcow2"
        ),
        version="20260101",
        properties={
            "content_id": "org.example:download",
            "product_name": "org.tiny:24.04",
            "version_name": "20260101",
            "item_name": "disk1.img",
            "os_distro": "tiny",
            "os_version": "24.04",
            "architecture": "x86_64",
        },
    )


SERIALS = {
    "20260103": {"root": {**ITEM, "ftype": "root.tar.xz"}},
    "20260102": {"disk": {**ITEM, "ftype": "disk.img"}, "squash": {**ITEM, "ftype": "squashfs"}},
    "20260101.1": {"disk": ITEM},
    "20260101": {"disk": ITEM},
}


@pytest.mark.parametrize(
    ("filters", "newest", "found"),
    [
        pytest.param([], None, ["20260102", "20260101.1", "20260101"], id="disks, all serials"),
        pytest.param([], 1, ["20260102"], id="the newest that has a disk"),
        pytest.param([], 2, ["20260102", "20260101.1"], id="serials compare as texts"),
        pytest.param(["ftype=squashfs"], None, ["20260102"], id="another type"),
        pytest.param(["ftype~root"], 1, ["20260103"], id="a pattern"),
        pytest.param(["arch=arm64"], None, [], id="another architecture"),
        pytest.param(["release~noble|jammy", "os!=other"], 1, ["20260102"], id="several hold"),
        pytest.param(["release!~no"], None, [], id="not this pattern"),
        pytest.param(["label="], 1, ["20260102"], id="what is not there is empty"),
        pytest.param(["version_name=20260101"], 1, ["20260101"], id="filters come first"),
    ],
)
def test_which_items_are_wanted(filters: list[str], newest: int | None, found: list[str]) -> None:
    parsed = read(products(SERIALS), filters=filters, newest=newest)
    assert [spec.version for spec in parsed.specs] == found and not parsed.problems


def test_each_serial_is_an_image_of_its_own_unless_the_newest_replaces_it() -> None:
    both = read(products({"1": {"a": ITEM}, "2": {"a": ITEM}}), newest=2).specs
    assert len({spec.identity for spec in both}) == 2 == len({spec.name for spec in both})
    one = {read(products({serial: {"a": ITEM}}), newest=1).specs[0].identity for serial in "12"}
    assert len(one) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"size": "-1"}, "no number of bytes", id="a bad size"),
        pytest.param({"sha256": "12"}, "bad sha256", id="a short digest"),
        pytest.param({"path": None}, "no path", id="no path"),
    ],
)
def test_a_bad_item_costs_itself_alone(change: Mapping[str, Any], message: str) -> None:
    """The others go on, and the place of it is told."""
    parsed = read(products({"1": {"bad": {**ITEM, **change}, "good": ITEM}}))
    assert [spec.properties["item_name"] for spec in parsed.specs] == ["good"]
    (problem,) = parsed.problems
    assert message in problem.message and problem.descriptor.endswith("1:bad")


@pytest.mark.parametrize(
    "document",
    [
        {"format": "products:2.0", "products": {}},
        {"format": "products:1.0"},
        {"format": "index:1.0", "index": []},
        {"format": "products:1.0", "products": 3},
    ],
)
def test_documents_of_another_kind(document: Mapping[str, Any]) -> None:
    with pytest.raises(ImageListError):
        read(json.dumps(document).encode(), format=ListFormat.SIMPLESTREAMS)


def test_parts_of_other_types_are_problems() -> None:
    all_broken: list[Any] = [3, {"versions": []}, {"versions": {"1": {"items": 3}}}]
    for broken in ({"a": product} for product in all_broken):
        data = json.dumps({"format": "products:1.0", "products": broken}).encode()
        assert len(read(data).problems) == 1


def test_a_mirror_may_be_a_folder() -> None:
    place = replace(context(), location=LocalPath(Path("/mirror/streams/v1/images.json")))
    (spec,) = parse_list(products({"1": {"a": ITEM}}), place).specs
    assert spec.sources == (LocalPath(Path("/mirror/server/24.04/disk1.img")),)


def test_the_format_may_stand_at_the_end() -> None:
    document = json.loads(products({str(n): {"a": ITEM} for n in range(3000)}))
    document["format"] = document.pop("format")
    assert len(read(json.dumps(document).encode()).specs) == 3000


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["products", "versions", "items", "path", "ftype", "1"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_no_document_breaks_it(value: object) -> None:
    document = {"format": "products:1.0", "products": value}
    try:
        repr(read(json.dumps(document).encode()))
    except ImageListError:
        return


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "arch", "=x", "a b=c", "a~(", "a!~["])
def test_texts_that_are_no_filter(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (filter|regular expression)"):
        Filter.parse(text)
