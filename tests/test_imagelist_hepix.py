"""What the lists of HEPiX, EGI and CERN mean, signed or not, and what of them is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import hepix as lists
from glancing.model import Compression, Digest, Expected, Naming, Origin, Severity, Spec, Url
from tests.imagelist_documents import HEPIX_IMAGE, HEPIX_LIST, MD5, SHA512, hepix, signed

ORIGIN = Origin(3, 0, "cern")
IDENTIFIER = HEPIX_IMAGE["dc:identifier"]
IMAGE = Spec(
    name="Linux-0.3.4-i386",
    identity=IDENTIFIER,
    descriptor=IDENTIFIER,
    origin=Origin(3, 1, "cern"),
    sources=(Url("https://images.example.org/small.img"),),
    expected=Expected(
        published=(Digest("sha512", SHA512), Digest("md5", MD5)), published_size_bytes=12506112
    ),
    version="6.6.6",
    list_mark="00000000-0000-0000-0000-00000000cafe 12 2015-08-27T22:09:27Z",
)


@pytest.mark.parametrize(
    ("data", "is_signed"),
    [
        pytest.param(hepix(), False, id="JSON"),
        pytest.param(b"\xef\xbb\xbf\r\n" + hepix(), False, id="JSON after a BOM"),
        pytest.param(hepix({"hv:size": "12506112"}), False, id="a size as a string"),
        pytest.param(hepix(**{"hv:version": 12}), False, id="a version as a number"),
        pytest.param(signed(hepix()), True, id="S/MIME"),
        pytest.param(signed(hepix()).replace(b"\n", b"\r\n"), True, id="S/MIME with CRLF"),
        pytest.param(signed(b"\n" + hepix(), b"Content-Type: text/plain\n"), True, id="headers"),
        pytest.param(
            signed(
                b"\n" + base64.encodebytes(hepix()),
                b"Content-Transfer-Encoding: base64\n",
            ),
            True,
            id="base64",
        ),
    ],
)
def test_each_form_means_the_same(data: bytes, is_signed: bool) -> None:
    parsed = lists.parse(data, origin=ORIGIN)
    assert parsed.specs == (IMAGE,)
    assert parsed.signed is is_signed
    assert [problem.event for problem in parsed.problems] == (
        ["list.signature_unchecked"] if is_signed else []
    )
    assert lists.entry(data, IDENTIFIER, origin=ORIGIN) == IMAGE


def test_what_a_list_says_of_itself() -> None:
    parsed = lists.parse(
        hepix({"dc:date:expires": "2499-12-31T22:00:00Z"}, {"dc:identifier": "second"}),
        origin=ORIGIN,
    )
    assert (parsed.identifier, parsed.title, parsed.version) == (
        HEPIX_LIST["dc:identifier"],
        "Endorsed images",
        "12",
    )
    assert parsed.created == datetime(2015, 8, 27, 22, 9, 27, tzinfo=UTC)
    assert parsed.expires == datetime(2016, 8, 27, 22, tzinfo=UTC)
    assert parsed.image_expires == {IDENTIFIER: datetime(2499, 12, 31, 22, tzinfo=UTC)}
    assert [spec.origin.line for spec in parsed.specs] == [1, 2]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="null"),
        pytest.param("2016-01-02", datetime(2016, 1, 2, tzinfo=UTC), id="a date"),
        pytest.param("2016-01-02T03:04:05", datetime(2016, 1, 2, 3, 4, 5, tzinfo=UTC), id="naive"),
    ],
)
def test_times(text: str | None, moment: datetime | None) -> None:
    assert lists.parse(hepix(**{"dc:date:expires": text}), origin=ORIGIN).expires == moment


@pytest.mark.parametrize(
    ("changes", "naming", "name"),
    [
        pytest.param({}, Naming.OS_VERSION_ARCH, "Linux-0.3.4-i386", id="os-osversion-arch"),
        pytest.param({}, Naming.TITLE, "Small image", id="the title"),
        pytest.param({"sl:osversion": ""}, Naming.OS_VERSION_ARCH, "Linux-i386", id="parts"),
        pytest.param({"dc:title": None}, Naming.TITLE, "Linux-0.3.4-i386", id="no title"),
    ],
)
def test_names(changes: Mapping[str, Any], naming: Naming, name: str) -> None:
    assert lists.entry(hepix(changes), IDENTIFIER, origin=ORIGIN, naming=naming).name == name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"hv:format": ""}, (None, None), id="no format"),
        pytest.param({"hv:format": "raw.gz"}, ("raw", Compression.GZIP), id="raw.gz"),
        pytest.param({"hv:format": "QCOW2"}, ("qcow2", None), id="QCOW2"),
        pytest.param({"hv:format": "xz"}, (None, Compression.XZ), id="only a compression"),
        pytest.param({"hv:format": "OVA"}, (None, Compression.TAR), id="OVA"),
        pytest.param({"hv:format": "ova"}, (None, Compression.TAR), id="ova"),
        pytest.param({"hv:format": "raw.tar.xz"}, ("raw", Compression.XZ), id="raw.tar.xz"),
        pytest.param({"hv:format": "tar.gz"}, (None, Compression.GZIP), id="tar.gz"),
        pytest.param({"hv:format": "tgz"}, (None, Compression.GZIP), id="tgz"),
    ],
)
def test_formats(
    changes: Mapping[str, Any], expected: tuple[str | None, Compression | None]
) -> None:
    told = lists.entry(hepix(changes), IDENTIFIER, origin=ORIGIN).expected
    assert (told.disk_format, told.compression) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"hv:uri": ""}, "has no hv:uri", id="no address"),
        pytest.param({"hv:uri": "/etc/passwd"}, "scheme", id="a path"),
        pytest.param({"hv:uri": "file:///etc/passwd"}, "scheme file", id="file:"),
        pytest.param({"hv:uri": ["http://h/a"]}, "is not a string", id="an array for an address"),
        pytest.param({"hv:size": "big"}, "hv:size is 'big'", id="a size that is none"),
        pytest.param({"hv:size": 1.5}, "is not a string", id="half a byte"),
        pytest.param({"hv:size": True}, "is not a string", id="true bytes"),
        pytest.param({"hv:size": -5}, "hv:size is '-5'", id="a negative size"),
        pytest.param({"sl:checksum:sha512": MD5}, "sha512 has 128", id="a short digest"),
        pytest.param({"sl:checksum:crc": MD5}, "'crc'", id="an unknown algorithm"),
        pytest.param({"sl:checksum:MD5": "0" * 32}, "two different md5", id="a conflict"),
        pytest.param({"dc:title": "a\nb"}, "control characters", id="a newline in the title"),
        pytest.param({"dc:date:expires": "soon"}, "no time", id="a bad time"),
        pytest.param(
            {"dc:date:expires": "0001-01-01T00:00:00+23:59"}, "no time", id="before all time"
        ),
    ],
)
def test_a_bad_image_is_a_problem_of_its_own(changes: Mapping[str, Any], message: str) -> None:
    data = hepix(changes, {"dc:identifier": "good"})
    parsed = lists.parse(data, origin=ORIGIN, naming=Naming.TITLE)
    (problem,) = parsed.problems
    assert [spec.identity for spec in parsed.specs] == ["good"]
    assert (problem.severity, problem.descriptor) == (Severity.ERROR, IDENTIFIER)
    assert problem.origin == Origin(3, 1, "cern")
    with pytest.raises(ImageListError, match=message):
        parsed.entry(IDENTIFIER)


def test_an_identifier_that_stands_twice_selects_nothing() -> None:
    parsed = lists.parse(hepix({}, {"hv:version": "7"}), origin=ORIGIN)
    assert parsed.specs == (IMAGE,)
    with pytest.raises(ImageListError, match="stands twice"):
        parsed.entry(IDENTIFIER)


def test_an_absent_image_is_said_with_what_there_is() -> None:
    with pytest.raises(ImageListError, match="no image nothing among its 1") as caught:
        lists.entry(hepix(), "nothing", origin=ORIGIN)
    assert caught.value.hint == f"it begins with {IDENTIFIER}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "neither JSON nor", id="nothing"),
        pytest.param(b"http://h/a.img\n", "neither JSON nor", id="a plain list"),
        pytest.param(b"{}", "no hv:imagelist", id="other JSON"),
        pytest.param(b"[]", "not a JSON object", id="an array"),
        pytest.param(b'{"hv:imagelist": []}', "not a JSON object", id="a list of the wrong type"),
        pytest.param(b'{"hv:imagelist": {}}', "no dc:identifier", id="an empty list"),
        pytest.param(hepix(**{"hv:images": {}}), "not a JSON array", id="images of a wrong type"),
        pytest.param(hepix(**{"dc:date:expires": "x"}), "no time", id="a bad time"),
        pytest.param(hepix()[:-5], "not proper JSON", id="cut"),
        pytest.param(hepix().decode().encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(signed(b"{"), "not proper JSON", id="an envelope around half a list"),
        pytest.param(signed(hepix()).split(b"----B7", 1)[0], "content and a sig", id="headers"),
        pytest.param(
            signed(signed(hepix())), "neither|content|proper JSON|not", id="an envelope in another"
        ),
        pytest.param(
            b"X: y\n" * 20_000 + signed(hepix()),
            "neither JSON nor",
            id="endless headers",
        ),
    ],
)
def test_documents_that_are_none(data: bytes, message: str) -> None:
    with pytest.raises(ImageListError, match=message) as caught:
        lists.parse(data, origin=ORIGIN)
    assert caught.value.kind is ErrorKind.BAD_LIST


def test_no_images_is_an_empty_list() -> None:
    assert lists.parse(hepix(**{"hv:images": []}), origin=ORIGIN).specs == ()


VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([])
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from([hepix(), signed(hepix())]))
    start = draw(st.integers(0, len(data)))
    end = start + draw(st.integers(0, 40))
    return data[:start] + draw(st.binary(max_size=8)) + data[end:]


@given(
    st.binary()
    | st.binary().map(signed)
    | damaged()
    | st.dictionaries(st.sampled_from(sorted(HEPIX_IMAGE)), VALUES).map(hepix)
    | st.dictionaries(st.sampled_from(sorted(HEPIX_LIST)), VALUES).map(
        lambda fields: json.dumps({"hv:imagelist": {"hv:images": [], **fields}}).encode()
    )
)
def test_no_bytes_break_the_parser(data: bytes) -> None:
    try:
        parsed = lists.parse(data, origin=ORIGIN)
    except ImageListError as error:
        error.message.encode()
        return
    repr(parsed).encode()


@pytest.mark.parametrize("name", ["OVA", "ova"])
def test_an_ova_is_an_archive_whose_disk_tells_its_format(name: str) -> None:
    (spec,) = lists.parse(hepix({"hv:format": name}), origin=ORIGIN).specs
    assert (spec.expected.compression, spec.expected.disk_format) == (Compression.TAR, None)
