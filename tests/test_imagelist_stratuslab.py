"""What the metadata of a marketplace means, and what of it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import parse_metadata, parse_need
from glancing.imagelist.stratuslab import MAX_XML_BYTES
from glancing.model import (
    Compression,
    Digest,
    Expected,
    LocalPath,
    Naming,
    Need,
    NeedKind,
    Origin,
    Spec,
    Url,
)
from tests.imagelist_documents import (
    FIELDS,
    ID,
    MD5,
    SHA512,
    XML_NAMESPACES,
    rdf_json,
    rdf_json_document,
    xml,
    xml_description,
    xml_document,
)

REMOTE = Need(
    NeedKind.STRATUSLAB,
    Url("https://marketplace.example.org/metadata/x"),
    MAX_XML_BYTES,
    "the-descriptor",
    Origin(2, 7, "vmlist"),
)
LOCAL = replace(REMOTE, location=LocalPath(Path("/lists/meta/tiny.xml")), trusted=True)
IMAGE = Spec(
    name="Tiny image",
    identity=ID,
    descriptor="the-descriptor",
    origin=Origin(2, 7, "vmlist"),
    sources=(Url("http://images.example.org/tiny.qcow2.gz"),),
    expected=Expected(
        image=(Digest("md5", MD5), Digest("sha512", SHA512)),
        image_size_bytes=12506112,
        compression=Compression.GZIP,
        disk_format="qcow2",
    ),
    version="20160411",
    mpid=ID,
)

Build = Callable[..., bytes]
FORMS = pytest.mark.parametrize("build", [xml, rdf_json])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(xml(), id="rdf:RDF is the root"),
        pytest.param(xml(around="metadata"), id="metadata is around it"),
        pytest.param(rdf_json(), id="RDF-JSON"),
        pytest.param(b"\xef\xbb\xbf \r\n" + rdf_json(), id="JSON after BOM and blanks"),
        pytest.param(b"\xef\xbb\xbf" + xml(), id="XML after a BOM"),
        pytest.param(xml().replace(b"\n", b"\r\n"), id="CRLF"),
    ],
)
def test_each_form_means_the_same(data: bytes) -> None:
    assert parse_metadata(data, REMOTE) == IMAGE
    assert parse_need(data, REMOTE).specs == (IMAGE,)


@FORMS
@pytest.mark.parametrize(
    ("changes", "naming", "name"),
    [
        pytest.param({}, Naming.TITLE, "Tiny image", id="the title"),
        pytest.param({}, Naming.OS_VERSION_ARCH, "Tiny-1.0-x86_64", id="os-osversion-arch"),
        pytest.param({"slterms:os-version": ""}, Naming.OS_VERSION_ARCH, "Tiny-x86_64", id="parts"),
        pytest.param({"dcterms:title": " "}, Naming.TITLE, "Tiny-1.0-x86_64", id="no title"),
        pytest.param(
            dict.fromkeys(["slterms:os", "slterms:os-version", "slterms:os-arch"], ""),
            Naming.OS_VERSION_ARCH,
            "Tiny image",
            id="no os, version or arch",
        ),
        pytest.param(
            dict.fromkeys(
                ["slterms:os", "slterms:os-version", "slterms:os-arch", "dcterms:title"], ""
            ),
            Naming.TITLE,
            ID,
            id="nothing but the ID",
        ),
    ],
)
def test_names(build: Build, changes: Mapping[str, str], naming: Naming, name: str) -> None:
    assert parse_metadata(build(changes), replace(REMOTE, naming=naming)).name == name


@FORMS
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"slreq:bytes": ""}, {"image_size_bytes": None}, id="no size"),
        pytest.param({"slreq:bytes": " 7 "}, {"image_size_bytes": 7}, id="space around a size"),
        pytest.param({"dcterms:compression": ""}, {"compression": None}, id="nothing said"),
        pytest.param(
            {"dcterms:compression": "none"}, {"compression": Compression.NONE}, id="uncompressed"
        ),
        pytest.param(
            {"dcterms:compression": "BZIP2"}, {"compression": Compression.BZIP2}, id="bzip2"
        ),
        pytest.param({"dcterms:format": ""}, {"disk_format": None}, id="no format"),
        pytest.param({"dcterms:format": "QCOW2"}, {"disk_format": "qcow2"}, id="upper case"),
        pytest.param({"dcterms:format": "img"}, {"disk_format": "raw"}, id="img is raw"),
        pytest.param({"dcterms:format": "vpc"}, {"disk_format": "vhd"}, id="vpc is vhd"),
    ],
)
def test_fields(build: Build, changes: Mapping[str, str], expected: Mapping[str, Any]) -> None:
    spec = parse_metadata(build(changes), REMOTE)
    assert spec.expected == replace(IMAGE.expected, **expected)


@FORMS
def test_missing_fields(build: Build) -> None:
    changes = dict.fromkeys(set(FIELDS) - {"slterms:location"}, "")
    need = replace(REMOTE, naming=Naming.TITLE)
    with pytest.raises(ImageListError, match="no image name"):
        parse_metadata(build(changes, ()), need)
    spec = parse_metadata(build(changes, ()), replace(need, mpid=ID))
    assert (spec.name, spec.identity, spec.mpid, spec.version) == (ID, ID, ID, None)
    assert spec.expected == Expected()


@FORMS
def test_without_identifier_the_location_is_the_identity(build: Build) -> None:
    location = "https://user:secret@h.example.org:8/a.img?token=secret#x"
    changes = {"dcterms:identifier": "", "slterms:location": location}
    spec = parse_metadata(build(changes), REMOTE)
    assert (spec.identity, spec.mpid) == ("https://h.example.org:8/a.img", None)


@FORMS
@pytest.mark.parametrize(
    ("checksums", "digests"),
    [
        pytest.param((), (), id="no checksum"),
        pytest.param((("MD5", ""), ("", "")), (), id="empty checksums are missing"),
        pytest.param((("MD5", MD5.upper()),), (Digest("md5", MD5),), id="upper case"),
        pytest.param((("", MD5),), (Digest("md5", MD5),), id="length decides without a label"),
        pytest.param((("MD5", MD5), ("md5", MD5)), (Digest("md5", MD5),), id="the same twice"),
    ],
)
def test_checksums(
    build: Build, checksums: tuple[tuple[str, str], ...], digests: tuple[Digest, ...]
) -> None:
    spec = parse_metadata(build(checksums=checksums), REMOTE)
    assert (spec.expected.image, spec.expected.published) == (digests, ())


def test_checksums_may_be_nodes_of_their_own() -> None:
    node = (
        '<rdf:Description rdf:nodeID="A0"><slreq:algorithm>MD5</slreq:algorithm>'
        f"<slreq:value>{MD5}</slreq:value></rdf:Description>"
    )
    main = xml_description(FIELDS, ()).replace(
        "</rdf:Description>", '<slreq:checksum rdf:nodeID="A0"/></rdf:Description>'
    )
    nested = xml_description(FIELDS, ()).replace(
        "</rdf:Description>",
        f"<slreq:checksum>{node}</slreq:checksum></rdf:Description>",
    )
    for data in (xml_document(node, main), xml_document(nested)):
        assert parse_metadata(data, REMOTE).expected.image == (Digest("md5", MD5),)


def test_a_checksum_that_names_an_absent_node_is_missing() -> None:
    document = rdf_json_document()
    del document["_:0"], document["_:1"]
    assert parse_metadata(json.dumps(document).encode(), REMOTE).expected.image == ()


@FORMS
@pytest.mark.parametrize(
    ("changes", "checksums", "kind", "message"),
    [
        pytest.param(
            {"slterms:location": ""}, (), ErrorKind.BAD_METADATA, "no location", id="no location"
        ),
        pytest.param(
            {"slreq:bytes": "12k"}, (), ErrorKind.BAD_METADATA, "slreq:bytes is '12k'", id="size"
        ),
        pytest.param(
            {"slreq:bytes": "-1"}, (), ErrorKind.BAD_METADATA, "slreq:bytes", id="negative size"
        ),
        pytest.param(
            {"slreq:bytes": "٣"}, (), ErrorKind.BAD_METADATA, "slreq:bytes", id="Arabic size"
        ),
        pytest.param(
            {"slreq:bytes": "9" * 5000}, (), ErrorKind.BAD_METADATA, "slreq:bytes", id="huge size"
        ),
        pytest.param({"slreq:bytes": "0"}, (), ErrorKind.BAD_METADATA, "is 0", id="size zero"),
        pytest.param(
            {"dcterms:compression": "rar"}, (), ErrorKind.BAD_COMPRESSION, "'rar'", id="rar"
        ),
        pytest.param({}, (("MD5", SHA512),), ErrorKind.BAD_METADATA, "md5 has 32", id="length"),
        pytest.param({}, (("MD5", "zz"),), ErrorKind.BAD_METADATA, "hexadecimal", id="no hex"),
        pytest.param({}, (("CRC", MD5),), ErrorKind.BAD_METADATA, "'CRC'", id="unknown algorithm"),
        pytest.param(
            {}, (("MD5", MD5), ("MD5", "0" * 32)), ErrorKind.BAD_DIGEST, "two diff", id="conflict"
        ),
        pytest.param(
            {"slterms:location": "/etc/passwd"}, (), ErrorKind.BAD_METADATA, "no http", id="path"
        ),
        pytest.param(
            {"slterms:location": "file:///etc/passwd"},
            (),
            ErrorKind.BAD_METADATA,
            "file",
            id="file",
        ),
        pytest.param(
            {"slterms:location": "http://h:x/a"}, (), ErrorKind.BAD_METADATA, "port", id="bad port"
        ),
        pytest.param(
            {"dcterms:title": "x" * 256}, (), ErrorKind.BAD_METADATA, "more than 255", id="long"
        ),
    ],
)
def test_refused_fields(
    build: Build,
    changes: Mapping[str, str],
    checksums: tuple[tuple[str, str], ...],
    kind: ErrorKind,
    message: str,
) -> None:
    """Faults 15, 30, 31 and 38 in metadata that was fetched."""
    with pytest.raises(ImageListError, match=message) as caught:
        parse_metadata(build(changes, checksums), REMOTE)
    assert caught.value.kind is kind


@FORMS
def test_metadata_of_another_image_is_refused(build: Build) -> None:
    need = replace(REMOTE, mpid="x" * 27)
    with pytest.raises(ImageListError, match=f"x was asked for, this is of {ID}"):
        parse_metadata(build(), need)


@FORMS
@pytest.mark.parametrize(
    ("location", "path"),
    [
        pytest.param("images/a.img", "/lists/meta/images/a.img", id="relative to the metadata"),
        pytest.param("/srv/a.img", "/srv/a.img", id="absolute"),
    ],
)
def test_local_metadata_may_name_files(build: Build, location: str, path: str) -> None:
    """Fault 15: a local metadata file is the operator's own words."""
    spec = parse_metadata(build({"slterms:location": location}), LOCAL)
    assert spec.sources == (LocalPath(Path(path)),)


def test_trust_in_a_need_for_a_url_opens_no_files() -> None:
    with pytest.raises(ImageListError, match="no http"):
        parse_metadata(xml({"slterms:location": "a.img"}), replace(REMOTE, trusted=True))


def test_several_locations_are_mirrors() -> None:
    extra = "<slterms:location>https://mirror.example.org/t</slterms:location>"
    main = xml_description(FIELDS).replace("</rdf:Description>", f"{extra}</rdf:Description>")
    assert [str(source) for source in parse_metadata(xml_document(main), REMOTE).sources] == [
        "http://images.example.org/tiny.qcow2.gz",
        "https://mirror.example.org/t",
    ]


def test_a_field_with_two_values_is_refused() -> None:
    extra = "<slterms:version>2</slterms:version>"
    main = xml_description(FIELDS).replace("</rdf:Description>", f"{extra}</rdf:Description>")
    with pytest.raises(ImageListError, match="version has 2 different values"):
        parse_metadata(xml_document(main), REMOTE)


ENTITY = '<!DOCTYPE x [<!ENTITY a "aaaa">]>'
LOL = (
    '<!DOCTYPE x [<!ENTITY a0 "lol">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)
XXE = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
EXTERNAL = '<!DOCTYPE x SYSTEM "http://attacker.example.org/x.dtd">'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "neither XML nor JSON", id="nothing"),
        pytest.param(b"plain text", "neither XML nor JSON", id="text"),
        pytest.param(b"<!DOCTYPE html><html>", "HTML where metadata should be", id="HTML 5"),
        pytest.param(b" <HTML><body>", "HTML where metadata should be", id="HTML"),
        pytest.param(b'{"rMsg": "no metadata"}', "marketplace: no metadata", id="rMsg"),
        pytest.param(b"[]", "neither XML nor JSON", id="a JSON array"),
        pytest.param(b"{}", "describes 0 images", id="an empty object"),
        pytest.param(b'{"a": 1}', "not a JSON object", id="a subject of the wrong type"),
        pytest.param(b'{"a": {"b": 1}}', "not a JSON array", id="a predicate of the wrong type"),
        pytest.param(b'{"a": {"b": [1]}}', "not a JSON object", id="a value of the wrong type"),
        pytest.param(b'{"a": {"b": [{"value": 1}]}}', "not a string", id="a number for a value"),
        pytest.param(b'{"a": {}, "a": {}}', "stands twice", id="a name twice"),
        pytest.param(b'{"a": NaN}', "NaN", id="NaN"),
        pytest.param(b'{"a": 1e999}', "too large", id="infinity"),
        pytest.param(b'{"a": "\\ud800"}', "not UTF-8", id="an unpaired surrogate"),
        pytest.param(b'{"a": "\xff"}', "not UTF-8", id="JSON that is not UTF-8"),
        pytest.param(b'{"a":' * 100_000, "nested too deeply", id="deep JSON"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "not proper JSON", id="a huge number"),
        pytest.param("{}".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(xml().replace(b"Tiny", b"Ti\0ny", 1), "binary", id="NUL"),
        pytest.param(b"<a/>", "no RDF metadata", id="other XML"),
        pytest.param(b"<metadata/>", "no RDF metadata", id="empty metadata"),
        pytest.param(b"<a", "no proper XML", id="cut XML"),
        pytest.param(b'<?xml version="1.0" encoding="klingon"?><a/>', "no proper XML", id="coding"),
        pytest.param(b"<a>" * 200_000, "no proper XML", id="deep and cut XML"),
        pytest.param(b"<a>" * 200_000 + b"</a>" * 200_000, "no RDF", id="deep XML"),
        pytest.param(xml_document(), "describes 0 images", id="no description"),
        pytest.param(
            xml_document(xml_description(FIELDS), xml_description(FIELDS)), "2 images", id="two"
        ),
        pytest.param(xml_document(doctype=ENTITY), "document type", id="an entity"),
        pytest.param(xml_document("&a9;", doctype=LOL), "document type", id="billion laughs"),
        pytest.param(xml_document("&e;", doctype=XXE), "document type", id="external entity"),
        pytest.param(xml_document(doctype=EXTERNAL), "document type", id="external DTD"),
        pytest.param(b"<a>" + b" " * MAX_XML_BYTES, "more than", id="more than 10 MiB"),
    ],
)
def test_documents_that_are_none(data: bytes, message: str) -> None:
    """Faults 24, 25 and 36: hostile documents end in a clear error."""
    with pytest.raises(ImageListError, match=message) as caught:
        parse_metadata(data, REMOTE)
    assert caught.value.kind is ErrorKind.BAD_METADATA


def test_many_fields_take_linear_time() -> None:
    data = xml_document(
        f"<rdf:Description {XML_NAMESPACES}>{'<slterms:os/>' * 300_000}</rdf:Description>"
    )
    with pytest.raises(ImageListError):
        parse_metadata(data, REMOTE)


JSON_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from([xml(), xml(around="metadata"), rdf_json()]))
    start = draw(st.integers(0, len(data)))
    end = start + draw(st.integers(0, 40))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]


@given(
    st.binary()
    | st.binary().map(lambda rest: b"<" + rest)
    | JSON_VALUES.map(lambda value: json.dumps({"a": value}).encode())
    | damaged(),
    st.sampled_from([REMOTE, LOCAL]),
)
@example(b"<?xml version='1.0' encoding='utf-7'?><a/>", REMOTE)
def test_no_bytes_break_the_parser(data: bytes, need: Need) -> None:
    try:
        spec = parse_metadata(data, need)
    except ImageListError as error:
        error.message.encode()
        return
    assert spec.name and spec.sources
