"""What a descriptor and a plain image list mean, and what of them is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glancing.errors import ImageListError
from glancing.imagelist import MarketplaceId, folder, parse_descriptor, parse_list
from glancing.model import (
    Compression,
    Digest,
    Expected,
    Keys,
    ListContext,
    LocalPath,
    Location,
    Naming,
    Need,
    NeedKind,
    Origin,
    Parsed,
    Problem,
    Severity,
    Spec,
    Url,
)
from tests.imagelist_documents import ID, hepix, signed, xml

MARKETPLACE = Url("https://marketplace.example.org/metadata")
BASE = Path("/lists")
ORIGIN = Origin(1, 0, "vmlist")


def describe(text: str, *, trusted: bool = True, name: str | None = None) -> Spec | Need:
    return parse_descriptor(
        text,
        marketplace=MARKETPLACE,
        base=BASE if trusted else None,
        trusted=trusted,
        origin=ORIGIN,
        naming=Naming.TITLE,
        name=name,
    )


def parse(data: bytes | str, *, trusted: bool = True) -> Parsed:
    location = LocalPath(BASE / "vmlist") if trusted else Url("https://lists.example.org/vmlist")
    context = ListContext(location, ORIGIN, MARKETPLACE)
    return parse_list(data.encode() if isinstance(data, str) else data, context)


# --- descriptors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "identity", "source"),
    [
        pytest.param(
            "http://h.example.org/a/cirros-0.3.4-disk.img",
            "cirros-0.3.4-disk",
            "http://h.example.org/a/cirros-0.3.4-disk.img",
            Url("http://h.example.org/a/cirros-0.3.4-disk.img"),
            id="a URL is named by its file, without the suffix",
        ),
        pytest.param(
            "HTTPS://u:pw@h.example.org:8443/a%20b.qcow2.xz?token=pw#frag",
            "a b.qcow2",
            "https://h.example.org:8443/a%20b.qcow2.xz",
            Url("https://u:pw@h.example.org:8443/a%20b.qcow2.xz?token=pw"),
            id="no secret in name and identity",
        ),
        pytest.param(
            "http://[2001:db8::1]:80/x",
            "x",
            "http://[2001:db8::1]:80/x",
            Url("http://[2001:db8::1]:80/x"),
            id="IPv6, no suffix",
        ),
        pytest.param(
            "http://h/a%2Fb.img", "b", "http://h/a%2Fb.img", Url("http://h/a%2Fb.img"), id="%2F"
        ),
        pytest.param(
            "images/a.b.img",
            "a.b",
            "/lists/images/a.b.img",
            LocalPath(Path("/lists/images/a.b.img")),
            id="a path is relative to the list",
        ),
        pytest.param(
            "/srv/x/../a.img",
            "a",
            "/srv/a.img",
            LocalPath(Path("/srv/x/../a.img")),
            id="an absolute path",
        ),
        pytest.param(
            "file:///srv/a%20b.img",
            "a b",
            "/srv/a b.img",
            LocalPath(Path("/srv/a b.img")),
            id="a file URL",
        ),
        pytest.param(
            f"./{ID}", ID, f"/lists/{ID}", LocalPath(Path(f"/lists/{ID}")), id="./ID is a path"
        ),
    ],
)
def test_images(text: str, name: str, identity: str, source: Location) -> None:
    spec = describe(text)
    assert isinstance(spec, Spec)
    assert (spec.name, spec.identity, spec.sources) == (name, identity, (source,))
    assert "pw" not in f"{spec.descriptor} {spec!r}"


@pytest.mark.parametrize(
    ("text", "location", "mpid", "trusted"),
    [
        pytest.param(ID, f"{MARKETPLACE}/{ID}", ID, False, id="27 characters are an ID"),
        pytest.param(
            "-" + ID[1:], f"{MARKETPLACE}/-{ID[1:]}", "-" + ID[1:], False, id="a leading hyphen"
        ),
        pytest.param("http://h/m.xml?t=1", "http://h/m.xml", None, False, id="a URL of XML"),
        pytest.param("http://h/m.JSON", "http://h/m.JSON", None, False, id="a URL of JSON"),
        pytest.param("meta/m.xml", "/lists/meta/m.xml", None, True, id="a file of XML"),
        pytest.param("/m.json", "/m.json", None, True, id="a file of JSON"),
    ],
)
def test_metadata(text: str, location: str, mpid: str | None, trusted: bool) -> None:
    need = describe(text)
    assert isinstance(need, Need)
    assert (need.kind, need.origin, need.naming) == (NeedKind.STRATUSLAB, ORIGIN, Naming.TITLE)
    assert (str(need.location), need.mpid, need.trusted) == (location, mpid, trusted)


def test_the_marketplace_may_have_a_query_and_a_final_slash() -> None:
    url = MarketplaceId(ID).metadata_url(Url("https://u:pw@h/base/?key=v"))
    assert url.full == f"https://u:pw@h/base/{ID}?key=v"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(ID + "x", id="28 characters"),
        pytest.param(ID[1:], id="26 characters"),
        pytest.param(ID[1:] + "+", id="another alphabet"),
        pytest.param(ID + "\n", id="a newline after it"),
    ],
)
def test_texts_that_are_no_id(text: str) -> None:
    assert MarketplaceId.parse(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "empty", id="nothing"),
        pytest.param("ftp://u:pw@h/a.img", "ftp://h/a.img: addresses of scheme ftp", id="ftp"),
        pytest.param("file://h/etc/passwd", "no file of this machine", id="another's file"),
        pytest.param("file:etc/passwd", "no file of this machine", id="a relative file URL"),
        pytest.param("file:///a%0ab", "control characters", id="an encoded newline in a path"),
        pytest.param("http:///a.img", "no host", id="no host"),
        pytest.param("http:a.img", "no host", id="no slashes"),
        pytest.param("http://u:pw@/a.img", "no host", id="only user info"),
        pytest.param("http://h:99999/a", "port", id="bad port"),
        pytest.param("http://user:pw/x@h:y/a", "port", id="a slash in the password"),
        pytest.param("http://[::1/a", "cannot be read", id="bad IPv6"),
        pytest.param("http://h/a b", "white space", id="space"),
        pytest.param("http://h\\@evil/a", "backslash", id="backslash"),
        pytest.param("http://h/a\x07", "control characters", id="control characters"),
        pytest.param("a\udcff.img", "not UTF-8", id="a path that is not UTF-8"),
        pytest.param("http://h.xml", "no image name follows", id="a host that ends in .xml"),
        pytest.param("http://h/", "no image name follows from http://h/", id="no file"),
        pytest.param("http://u:pw@h?q=pw", "no image name follows from http://h", id="no path"),
        pytest.param("http://h/a/..", "no image name", id="dots"),
        pytest.param("http://h/a%0ab.img", "control characters", id="an encoded newline"),
        pytest.param(f"http://h/{'a' * 256}", "more than 255", id="a long name"),
        pytest.param(f"http://h/{'a/' * 4000}b", "too long", id="a long URL"),
        pytest.param("dir/", "no image name", id="a folder"),
    ],
)
def test_bad_descriptors(text: str, message: str) -> None:
    """Faults 14, 15, 38 and 56: refused before anything is opened, and no secret is told."""
    with pytest.raises(ImageListError, match=message) as caught:
        describe(text)
    assert "pw" not in caught.value.message


def test_a_given_name_mends_what_names_nothing() -> None:
    spec = describe("http://h/", name="mine")
    assert isinstance(spec, Spec) and spec.name == "mine"


# --- lists ----------------------------------------------------------------------------------------

SAME_ENTRIES = f"# comment\n\n{ID}\n  http://h/a.img\n\t# indented comment\nb.img\n"


def rows(parsed: Parsed) -> list[tuple[str, int]]:
    found = [(spec.descriptor, spec.origin.line) for spec in parsed.specs]
    return found + [(need.descriptor, need.origin.line) for need in parsed.needs]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SAME_ENTRIES.encode(), id="plain"),
        pytest.param(SAME_ENTRIES.replace("\n", "\r\n").encode(), id="CRLF"),
        pytest.param(SAME_ENTRIES.encode("utf-8-sig"), id="BOM"),
        pytest.param(SAME_ENTRIES.rstrip().encode(), id="no final newline"),
        pytest.param(SAME_ENTRIES.replace("b.img", "b.img \t").encode(), id="trailing blanks"),
        pytest.param(SAME_ENTRIES.encode().replace(b"comment", b"\xff\xfe"), id="odd comments"),
        pytest.param(SAME_ENTRIES.encode() + b"#" + b"x" * 1_000_000, id="a comment of 1 MB"),
        pytest.param(SAME_ENTRIES.replace("b.img", "b.img\u3000").encode(), id="wide blank"),
        pytest.param(SAME_ENTRIES.encode() + b"\n\x1f\n", id="blank to Unicode"),
    ],
)
def test_lists_that_people_edit(data: bytes) -> None:
    """Fault 36: the same entries, whatever the editor made of the file."""
    parsed = parse(data)
    assert rows(parsed) == [("http://h/a.img", 4), ("b.img", 6), (ID, 3)]
    assert parsed.problems == ()
    assert {spec.origin.list_name for spec in parsed.specs} == {"vmlist"}


WARNING, ERROR = Severity.WARNING, Severity.ERROR


@pytest.mark.parametrize(
    ("text", "severity", "event", "message"),
    [
        pytest.param(
            f"{ID}\n\n{ID}\n",
            WARNING,
            "list.duplicate_skipped",
            "the list vmlist, line 3 names the image of line 1 again",
            id="an ID twice",
        ),
        pytest.param(
            "http://h/a?q\nhttp://h/a?q#x\n",
            WARNING,
            "list.duplicate_skipped",
            "the list vmlist, line 2 names the image of line 1 again",
            id="a URL twice, fragments do not count",
        ),
        pytest.param(
            "a.img\nx/../a.img\n",
            WARNING,
            "list.duplicate_skipped",
            "the list vmlist, line 2 names the image of line 1 again",
            id="a path twice",
        ),
        pytest.param(
            f"a.img\n{ID} {ID}\n",
            WARNING,
            "list.line_skipped",
            "the list vmlist, line 2 has white space: one image per line",
            id="two images on a line",
        ),
        pytest.param(
            "a.img\nb.img # good\n",
            WARNING,
            "list.line_skipped",
            "the list vmlist, line 2 has white space: one image per line",
            id="a trailing comment",
        ),
        pytest.param(
            "http://h/a?version=1\nhttp://h/a?version=2\n",
            ERROR,
            "list.entry_refused",
            "the list vmlist, line 2: http://h/a differs from line 1 only in user info or query",
            id="equal but for the query",
        ),
        pytest.param(
            "a.img\nftp://h/a\n",
            ERROR,
            "list.entry_refused",
            "the list vmlist, line 2: ftp://h/a: addresses of scheme ftp are not supported",
            id="a bad entry",
        ),
        pytest.param(
            b"a.img\n\xff.img\n",
            ERROR,
            "list.entry_refused",
            "the list vmlist, line 2: \\udcff.img has control characters or is not UTF-8",
            id="an entry that is not UTF-8",
        ),
    ],
)
def test_bad_lines(text: str | bytes, severity: Severity, event: str, message: str) -> None:
    """A bad line costs that line, and says which it is."""
    parsed = parse(text)
    (problem,) = parsed.problems
    assert (problem.severity, problem.event, problem.message) == (severity, event, message)
    assert problem.origin == Origin(1, int(message.partition("line ")[2][0]), "vmlist")
    assert len(parsed.specs) + len(parsed.needs) == 1


def test_a_line_of_1_mb_is_a_bad_line_with_a_short_message() -> None:
    parsed = parse("a.img\nhttp://h/" + "x" * 1_000_000 + "\n")
    (problem,) = parsed.problems
    assert problem.severity is ERROR and problem.origin.line == 2
    assert len(problem.message) + len(problem.descriptor) < 1000


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.img", "a.xml", "~/a.img", "file:///etc/x"])
def test_fetched_lists_name_no_local_files(path: str) -> None:
    """Fault 15: a path is refused before it is opened."""
    parsed = parse(f"http://h/a.img\n{path}\n", trusted=False)
    assert rows(parsed) == [("http://h/a.img", 1)]
    assert [problem.severity for problem in parsed.problems] == [ERROR]


def test_secrets_of_a_list_stay_there() -> None:
    """Fault 56."""
    text = "".join(
        f"{line}\n"
        for line in [
            "http://u:pw@h/a?pw",
            "http://u:pw@h/a?pw=2",
            "ftp://u:pw@h/a?pw#pw",
            "http://u:pw@h/b c?pw",
            "http://u:pw/x@h:y/a",
            "http://u:pw@[h/a",
        ]
    )
    parsed = parse(text)
    assert len(parsed.problems) == 5
    assert "pw" not in repr(parsed)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n", "\ufeff"])
def test_a_list_without_entries_gets_a_warning(text: str) -> None:
    expected = Problem(WARNING, "list.empty", "the list vmlist has no entry", ORIGIN)
    assert parse(text) == Parsed(problems=(expected,))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"a.img\n\0\n", "UTF-16 or binary", id="NUL"),
        pytest.param("a.img\n".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param("a.img\n".encode("utf-16-le"), "UTF-16", id="UTF-16 without a mark"),
        pytest.param(b"a.img\n" * 20_000 + b"\0", "binary", id="NUL far behind"),
        pytest.param(hepix(), "the list is not signed", id="HEPiX"),
        pytest.param(signed(hepix()), "the list is not signed", id="HEPiX, unverified"),
        pytest.param(b"[]", "a JSON document", id="other JSON"),
        pytest.param(xml(), "an XML document", id="XML"),
        pytest.param(b"<!DOCTYPE html>", "a web page", id="HTML"),
        pytest.param(b"---\nnames:\n  - name: a\n", "YAML without images", id="YAML"),
        pytest.param(b"0" * 64 + b" *a.img\n", "a checksum file", id="GNU sums"),
        pytest.param(b"# c\nMD5 (a) = 0a\n", "a checksum file", id="BSD sums"),
        pytest.param(b"-----BEGIN PGP SIGNED MESSAGE-----\n", "PGP", id="PGP"),
    ],
)
def test_documents_that_are_no_plain_list(data: bytes, message: str) -> None:
    with pytest.raises(ImageListError, match=message):
        parse(data)


def test_100_000_lines_are_read_in_seconds() -> None:
    """Fault 37."""
    data = "".join(f"https://images.example.org/{n}/disk-{n}.img\n" for n in range(100_000))
    begin = time.monotonic()
    parsed = parse(data)
    assert len(parsed.specs) == 100_000
    assert time.monotonic() - begin < 30


@given(st.text() | st.text().map(lambda rest: f"http://{rest}"), st.booleans())
@example("http://\u2100", True)
@example("//h/a", True)
@example("http://h/\ud800", False)
def test_no_text_breaks_a_descriptor(text: str, trusted: bool) -> None:
    try:
        result = describe(text, trusted=trusted)
    except ImageListError as error:
        error.message.encode()
        return
    address = result.sources[0] if isinstance(result, Spec) else result.location
    assert trusted or isinstance(address, Url)
    f"{result!r}".encode()


LINES = st.sampled_from(
    [ID.encode(), b"a.img", b"http://h/a?b", b"http://h/a", b"#", b"\xff", b" "]
)


@given(st.binary() | st.lists(LINES | st.binary(), max_size=20).map(b"\n".join), st.booleans())
def test_no_bytes_break_a_list(data: bytes, trusted: bool) -> None:
    try:
        parsed = parse(data, trusted=trusted)
    except ImageListError:
        return
    assert parsed.specs or parsed.needs or parsed.problems
    repr(parsed).encode()


# --- words after the descriptor -------------------------------------------------------------------

SHA256 = "ab" * 32


def one(text: str, *, trusted: bool = True) -> Spec | Need:
    parsed = parse(text, trusted=trusted)
    assert parsed.problems == ()
    entries: list[Spec | Need] = [*parsed.specs, *parsed.needs]
    (entry,) = entries
    return entry


def test_keys_come_before_what_follows_from_the_descriptor() -> None:
    spec = one(f'http://h/a.img name="My image" id=42 version=1.2 format=qcow2.xz sums={SHA256}')
    assert isinstance(spec, Spec)
    assert (spec.name, spec.identity, spec.version) == ("My image", "42", "1.2")
    assert spec.expected == Expected(
        either=(Digest("sha256", SHA256),), compression=Compression.XZ, disk_format="qcow2"
    )


@pytest.mark.parametrize(
    ("value", "location"),
    [
        pytest.param("http://h/SHA256SUMS", Url("http://h/SHA256SUMS"), id="a URL"),
        pytest.param("SUMS", LocalPath(BASE / "SUMS"), id="a path, relative to the list"),
        pytest.param("/a/SUMS", LocalPath(Path("/a/SUMS")), id="an absolute path"),
        pytest.param("file:///a/SU%20MS", LocalPath(Path("/a/SU MS")), id="a file URL"),
    ],
)
def test_digests_may_stand_elsewhere(value: str, location: Location) -> None:
    need = one(f"http://h/a.img sums={value} name=a")
    assert isinstance(need, Need) and need.spec is not None
    assert (need.kind, need.location, need.spec.name) == (NeedKind.SUMS, location, "a")
    assert need.keys.sums_files == (location,)


def test_keys_of_metadata_wait_for_it() -> None:
    need = one(f"{ID} name=mine sums=md5:{'0' * 32}")
    assert isinstance(need, Need) and need.kind is NeedKind.STRATUSLAB
    assert (need.keys.name, need.keys.sums) == ("mine", (Digest("md5", "0" * 32),))


def test_ids_tell_entries_apart() -> None:
    """Two addresses that are equal but for the query are one image unless ``id=`` says so."""
    parsed = parse("http://h/a?v=1 id=1\nhttp://h/a?v=2 id=2\nb.img id=1\n")
    assert [spec.identity for spec in parsed.specs] == ["1", "2"]
    (problem,) = parsed.problems
    assert problem.severity is ERROR and "line 1" in problem.message


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("a.img name=x name=y", id="a key twice"),
        pytest.param("a.img color=red", id="an unknown key"),
        pytest.param("a.img name=", id="no value"),
        pytest.param('a.img name="x', id="an open quote"),
        pytest.param('a.img name="x"y', id="text behind a quote"),
        pytest.param("a.img name =x", id="a blank before the sign"),
        pytest.param("a.img name=x b.img", id="another descriptor"),
    ],
)
def test_other_white_space_is_skipped(line: str) -> None:
    (problem,) = parse(f"{line}\n").problems
    assert (problem.severity, problem.event) == (WARNING, "list.line_skipped")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param('a.img name=""', "no image name", id="an empty name"),
        pytest.param(f"a.img name={'x' * 256}", "more than 255", id="a long name"),
        pytest.param("a.img format=rar.zip sums=ftp://h/x", "scheme ftp", id="a bad address"),
        pytest.param(f"a.img sums={SHA256}:{'cd' * 32}", "two different", id="two digests"),
        pytest.param("a.img sums=file://h/x", "no file of this machine", id="another machine"),
        pytest.param("list=", "takes the address", id="no list"),
        pytest.param("list=b name=x", "no other words", id="words behind a list"),
        pytest.param("list=vmlist", "includes itself", id="the list itself"),
    ],
)
def test_bad_words(line: str, message: str) -> None:
    (problem,) = parse(f"{line}\n").problems
    assert problem.severity is ERROR and message in problem.message


@pytest.mark.parametrize("line", ["a sums=/x", "http://h/a sums=x", "list=x", "file:///x"])
def test_fetched_lists_name_no_files_by_words_either(line: str) -> None:
    """Fault 15."""
    (problem,) = parse(f"{line}\n", trusted=False).problems
    assert "is a local path" in problem.message


def test_a_list_includes_others_three_deep() -> None:
    context = ListContext(LocalPath(BASE / "vmlist"), ORIGIN, MARKETPLACE)
    for depth in (1, 2, 3):
        (need,) = parse_list(b"list=below/vmlist\n", context).needs
        assert need.kind is NeedKind.LIST and need.context is not None
        context = need.context
        assert context.location == LocalPath(BASE / Path(*["below"] * depth) / "vmlist")
        assert context.origin.depth == depth and context.origin > ORIGIN
    (problem,) = parse_list(b"list=below/vmlist\n", context).problems
    assert "more than 3 deep" in problem.message


def test_a_fetched_list_that_is_included_names_no_files() -> None:
    """Fault 15: what a fetched list includes is not the operator's word either."""
    need = one("list=http://h/vmlist")
    assert isinstance(need, Need) and need.context is not None and not need.context.trusted


# --- folders --------------------------------------------------------------------------------------


def in_folder(*names: str) -> Parsed:
    context = ListContext(LocalPath(Path("/images")), ORIGIN, MARKETPLACE)
    return folder.parse(names, context)


def test_images_of_a_folder_go_with_its_checksum_files() -> None:
    parsed = in_folder(
        "README.txt", "SHA256SUMS", "a.img", "a.img.sha512", "b.raw.xz", "b.txt", f"{ID}.iso"
    )
    wanted = {need.spec.name: need.keys for need in parsed.needs if need.spec}
    own = (LocalPath(Path("/images/a.img.sha512")),)
    common = (LocalPath(Path("/images/SHA256SUMS")),)
    assert wanted == {
        "a": Keys(sums_files=own),
        "b.raw": Keys(sums_files=common, in_any_file=True),
        ID: Keys(sums_files=common, in_any_file=True),
    }
    assert parsed.problems == ()


def test_an_image_without_a_checksum_file_is_refused() -> None:
    (problem,) = in_folder("a.img").problems
    assert problem.severity is ERROR and "no checksum file" in problem.message


def test_definitions_in_a_folder_are_lists() -> None:
    parsed = in_folder("debian.yml", "ubuntu.yaml", "a.img")
    assert [need.kind for need in parsed.needs] == [NeedKind.LIST] * 2


def test_a_folder_with_neither_is_no_list() -> None:
    with pytest.raises(ImageListError, match="neither images nor definitions"):
        in_folder("README.txt", ".hidden.img")
