"""What definitions of openstack-image-manager mean, and what of them is refused.

Fault 15: fetched definitions name no local files. Fault 25: nesting, aliases and sizes without end.
Fault 36: encodings. Fault 38: hostile names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glancing.errors import ImageListError
from glancing.imagelist import parse_list, parse_need
from glancing.model import (
    Attributes,
    Digest,
    ListContext,
    ListFormat,
    LocalPath,
    Need,
    NeedKind,
    Origin,
    Parsed,
    Reading,
    Severity,
    Spec,
    Url,
)
from tests.imagelist_documents import ID, xml

SHA256 = "sha256:" + "a" * 64
HERE = LocalPath(Path("/lists/images.yml"))
ELSEWHERE = Url("https://lists.example.org/images.yml")


def parse(text: str | bytes, *, location: LocalPath | Url = HERE) -> Parsed:
    context = ListContext(location, Origin(1, 0, "images.yml"), Url("https://m.example.org/x"))
    return parse_list(text.encode() if isinstance(text, str) else text, context)


def definition(*versions: str, more: str = "", meta: str = "{os_distro: debian}") -> str:
    """One definition; each version is a flow map without its braces."""
    lines = ["---", "images:", "  - name: Debian 12", f"    meta: {meta}"]
    lines += [f"    {line}" for line in more.splitlines()]
    lines += ["    versions:", *(f"      - {{{version}}}" for version in versions)]
    return "\n".join(lines) + "\n"


def version(number: str = "'1'", url: str = "https://h.example.org/a.qcow2", more: str = "") -> str:
    return f"version: {number}, url: {url!r}{', ' if more else ''}{more}"


def only(parsed: Parsed) -> Spec:
    assert not parsed.problems
    (spec,) = parsed.specs
    return spec


def errors(parsed: Parsed) -> list[str]:
    return [each.message for each in parsed.problems if each.severity is Severity.ERROR]


# --- one definition, as that tool has it ----------------------------------------------------------

WHOLE = """\
---
images:
  - name: Debian 12
    enable: true
    shortname: debian-12
    format: qcow2
    login: debian
    password: secret
    min_disk: 8
    min_ram: 512
    status: active
    visibility: public
    multi: true
    latest_url: https://h.example.org/latest
    meta:
      os_distro: debian
      os_version: '12'
      hw_vif_multiqueue_enabled: true
      hw_firmware_type: null
      provided_until: 2030-01-01
      hotfix_hours: 24
    tags: [stable]
    versions:
      - version: '20260124'
        url: https://h.example.org/20260124/debian-12.qcow2
        mirror_url: https://mirror.example.org/20260124-debian-12.qcow2
        checksum: sha512:%s
        build_date: 2026-01-24 10:00:00
        hidden: true
        visibility: community
        meta: {replace_frequency: never}
""" % ("b" * 128)


def test_a_definition_becomes_an_image_with_all_that_it_says() -> None:
    spec = only(parse(WHOLE))
    assert (spec.name, spec.identity, spec.version) == (
        "Debian 12",
        "Debian 12/20260124",
        "20260124",
    )
    assert spec.origin == Origin(1, 24, "images.yml")
    assert spec.sources == (
        Url("https://mirror.example.org/20260124-debian-12.qcow2"),
        Url("https://h.example.org/20260124/debian-12.qcow2"),
    )
    assert spec.expected.either == (Digest("sha512", "b" * 128),)
    assert spec.expected.disk_format == "qcow2"
    assert spec.attributes == Attributes(
        visibility="community",
        hidden=True,
        min_disk_gib=8,
        min_ram_mib=512,
        tags=frozenset({"stable", "os:debian"}),
    )
    assert spec.properties == {
        "os_distro": "debian",
        "os_version": "12",
        "hw_vif_multiqueue_enabled": "True",
        "provided_until": "2030-01-01",
        "hotfix_hours": "24",
        "replace_frequency": "never",
        "image_description": "Debian 12",
        "image_name": "Debian 12",
        "image_original_user": "debian",
        "internal_version": "20260124",
        "image_source": "https://h.example.org/20260124/debian-12.qcow2",
        "image_build_date": "2026-01-24",
    }


@pytest.mark.parametrize(
    ("more", "versions", "names"),
    [
        pytest.param("", ["2", "10"], {"2": "Debian 12 2", "10": "Debian 12 10"}, id="single"),
        pytest.param("separator: '-'", ["2"], {"2": "Debian 12-2"}, id="separator"),
        pytest.param(
            "multi: true",
            ["10", "9", "8"],
            {"8": "Debian 12 (8)", "9": "Debian 12 (9)", "10": "Debian 12"},
            id="the newest of several bears the plain name, and 10 is newer than 9",
        ),
        pytest.param("multi: yes\nseparator: ''", ["1"], {"1": "Debian 12"}, id="multi, one"),
        pytest.param(
            "multi: true\nseparator: ''",
            ["1.9", "1.10"],
            {"1.9": "Debian 12(1.9)", "1.10": "Debian 12"},
            id="as written: 1.10 is not 1.1",
        ),
    ],
)
def test_names(more: str, versions: list[str], names: Mapping[str, str]) -> None:
    found = parse(definition(*map(version, versions), more=more))
    assert {spec.version: spec.name for spec in found.specs} == names
    assert {spec.identity for spec in found.specs} == {f"Debian 12/{v}" for v in versions}
    newest = next((spec.identity for spec in found.specs if spec.name == "Debian 12"), None)
    assert all(spec.successor == newest for spec in found.specs if spec.name != "Debian 12")


def test_the_newest_version_keeps_its_name_when_it_cannot_be_read() -> None:
    found = parse(definition(version("1"), version("2", url="ftp://h/a"), more="multi: true"))
    assert [(spec.name, spec.successor) for spec in found.specs] == [
        ("Debian 12 (1)", "Debian 12/2")
    ]
    assert len(errors(found)) == 1


def test_a_definition_that_is_not_enabled_is_left_out_unread() -> None:
    found = parse(definition("version: [broken]", more="enable: false"))
    assert not found.specs and [each.event for each in found.problems] == ["list.empty"]


@pytest.mark.parametrize(
    ("more", "meta", "expected"),
    [
        pytest.param("multi: true", "{os_version: '12'}", "12", id="multi: that of the image"),
        pytest.param("", "{os_version: '12'}", "1", id="else the version"),
    ],
)
def test_os_version(more: str, meta: str, expected: str) -> None:
    assert only(parse(definition(version(), more=more, meta=meta))).properties["os_version"] == (
        expected
    )


@pytest.mark.parametrize(
    ("visibility", "purposes"),
    [("public", ["oldgeneric", "generic"]), ("private", ["generic", "generic"])],
)
def test_only_the_newest_public_version_is_generic(visibility: str, purposes: list[str]) -> None:
    more = f"multi: true\nvisibility: {visibility}"
    found = parse(definition(version("1"), version("2"), more=more, meta="{os_purpose: generic}"))
    assert [spec.properties["os_purpose"] for spec in found.specs] == purposes


# --- latest, mirrors and further documents --------------------------------------------------------


@pytest.mark.parametrize("key", ["checksums_url", "checksum_url"])
def test_the_digest_of_latest_is_looked_up(key: str) -> None:
    more = f"{key}: 'https://h.example.org/SHA256SUMS', checksum: '{SHA256}'"
    (need,) = parse(definition(version("latest", more=more))).needs
    assert need.kind is NeedKind.SUMS and need.keys.kept_as == "upstream_checksum"
    assert need.keys.sums_files == (Url("https://h.example.org/SHA256SUMS"),)
    assert need.spec is not None and need.spec.identity == "Debian 12/latest"
    assert need.spec.version is None and not need.spec.expected.digests
    assert need.spec.dated and "internal_version" not in need.spec.properties


def test_a_checksum_file_serves_where_no_digest_is_written_down() -> None:
    more = "checksums_url: 'https://h.example.org/SHA256SUMS'"
    (need,) = parse(definition(version(more=more))).needs
    assert need.keys.kept_as is None and need.spec is not None and need.spec.version == "1"
    assert only(parse(definition(version(more=f"{more}, checksum: '{SHA256}'")))).expected.either


def test_several_addresses_are_mirrors() -> None:
    urls = (
        "version: 1, url: ['https://a.example.org/x', 'file:///images/x'], mirror_url: 'http://m/x'"
    )
    spec = only(parse(definition(urls)))
    assert spec.sources == (
        Url("http://m/x"),
        Url("https://a.example.org/x"),
        LocalPath(Path("/images/x")),
    )
    assert spec.properties["image_source"] == "https://a.example.org/x"


def test_no_secret_and_no_folder_reaches_a_property() -> None:
    secret = only(parse(definition(version(url="https://u:pw@h.example.org/x?token=pw"))))
    assert secret.properties["image_source"] == "https://h.example.org/x"
    local = only(parse(definition(version(url="file:///secret/folder/x.img"))))
    assert local.properties["image_source"] == "file:x.img"


def test_a_source_is_any_descriptor() -> None:
    assert only(parse(definition("version: 1, source: ./x.qcow2"))).sources == (
        LocalPath(Path("/lists/x.qcow2")),
    )
    (need,) = parse(definition(f"version: 1, source: {ID}")).needs
    assert need.kind is NeedKind.STRATUSLAB
    (spec,) = parse_need(xml(), need).specs
    assert (spec.name, spec.identity, spec.mpid) == ("Debian 12 1", "Debian 12/1", ID)
    assert spec.sources and spec.expected.digests and spec.properties["os_distro"] == "debian"


def test_definitions_that_were_fetched_name_no_files() -> None:
    for entry in (version(url="file:///etc/passwd"), "version: 1, source: /etc/passwd"):
        found = parse(definition(entry), location=ELSEWHERE)
        assert not found.specs and "not local" in errors(found)[0]


# --- what costs an entry, and what a line of warning ----------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (definition(version(), more="format: [qcow2]"), "line 5: format is no single value"),
        (definition(version(), more="min_disk: -1"), "line 5: min_disk is '-1', no whole number"),
        (definition(version(), more="min_ram: 1.5"), "line 5: min_ram is '1.5', no whole number"),
        (definition(version(), more="multi: maybe"), "line 5: multi is 'maybe', neither"),
        (definition(version(), more="enable: 1"), "line 5: enable is '1', neither"),
        (definition(version(), more="visibility: all"), "line 5: visibility is 'all', none of"),
        (definition(version(), more="status: gone"), "line 5: status is 'gone', none of"),
        (definition(version(), more="tags: [[a]]"), "line 5: tags is no list of texts"),
        (definition(version(), more="separator: {}"), "line 5: separator is no single value"),
        (definition(version(), meta="[a]"), "line 4: meta is no map"),
        (definition(version(), meta="{a: [b]}"), "line 4: a in meta is no single value"),
        (definition(version(), meta="{owner: me}"), "line 4: 'owner' in meta cannot be"),
        (definition(version(), meta="{glancing_state: x}"), "'glancing_state' in meta cannot"),
        (definition(version(), meta="{mpid: x}"), "line 4: 'mpid' in meta cannot be a property"),
        (definition("url: 'https://h/x'"), "line 6: the key version is missing"),
        (definition(version(), version()), "line 7: the version 1 stands twice"),
        (definition("version: 1"), "line 6: the key url is missing"),
        (definition(version(url="ftp://h/x")), "line 6: url: ftp://h/x: addresses of scheme ftp"),
        (definition(version("latest")), "line 6: latest needs checksums_url or checksum_url"),
        (
            definition(version(more="checksums_url: 'http://h/', checksum_url: 'http://h/'")),
            "line 6: both checksums_url and checksum_url",
        ),
        (definition(version(more="checksum: 'sha256:abc'")), "line 6: checksum: bad sha256"),
        (definition(version(more="build_date: soon")), "line 6: build_date is no date"),
        (definition(version(more="id: x")), "line 6: images with an id of their own are not"),
        (definition(version(more="hidden: x")), "line 6: hidden is 'x', neither"),
        (definition(version('"a\\nb"')), "line 6: version has control characters"),
        (definition(version("x" * 300)), "line 6: version: the name"),
        ("images:\n- 1\n", "line 2: an image is no map"),
        ("images:\n- enable: true\n", "line 2: the key name is missing"),
        ("images:\n- name: yes\n", "line 2: name is yes, no text: put it in quotes"),
        ("images:\n- name: x\n", "line 2: the key versions has no list"),
    ],
)
def test_what_is_wrong_costs_its_entry_and_is_told_with_its_line(text: str, message: str) -> None:
    good = "  - {name: good, versions: [{version: 1, url: 'https://h.example.org/g'}]}\n"
    padded = good if text.startswith("---") else good.strip() + "\n"
    found = parse(text + padded)
    (error,) = errors(found)
    assert error.startswith("the definitions images.yml, line ") and message in error
    assert [spec.name for spec in found.specs] == ["good 1"]


def test_a_number_to_keep_is_told_not_to_be_acted_on() -> None:
    events = [
        [each.event for each in parse(definition(version(), more=f"keep: {keep}")).problems]
        for keep in ("true", "3")
    ]
    assert events == [[], ["list.keep_ignored"]]


def test_keys_that_are_not_known_are_told() -> None:
    found = parse("anything: 1\n" + definition(version(more="colour: red"), more="min_dsk: 1")[4:])
    assert len(found.specs) == 1
    assert [each.event for each in found.problems] == ["list.key_unknown"] * 3
    assert [each.origin.line for each in found.problems] == [1, 5, 7]
    assert "line 5: the key min_dsk is not known" in found.problems[1].message


# --- YAML of strangers ----------------------------------------------------------------------------

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    + ["images: []"]
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LAUGHS, "line 6: more than 300000 values"),
        ("images: " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("images: " + "{a: " * 40 + "}" * 40, "nested more than 32 deep"),
        ("images: &a [*a]", "the alias *a stands for nothing yet"),
        ("images: [*b]", "the alias *b stands for nothing yet"),
        ("images: []\nimages: []", "line 2: the key images stands twice"),
        ("images: [{a: 1, a: 2}]", "the key a stands twice"),
        ("images: [{? [a] : 1}]", "a key is no text"),
        ("images: [!!python/object:os.system {}]", "the tag tag:yaml.org,2002:python/object"),
        ("images: [!!binary aGk=]", "the tag tag:yaml.org,2002:binary is not read"),
        ("images: [{<<: 1}]", "line 1: << takes in what is no map"),
        ("images: []\n---\nimages: []", "line 2: a second document begins"),
        ("images: [", "is not proper YAML: line "),
        ('images: ["\\UFFFFFFFF"]', "is not proper YAML"),
        ("images: \x01", "is not proper YAML"),
        ("images: {a: b}", "has no list of images"),
        (b"images: [\xff]", "is not UTF-8"),
        ("images: []".encode("utf-16"), "UTF-16 or binary"),
        (b"images: []\n" + b"#" * (4 * 1024 * 1024), "has more than 4194304 bytes"),
    ],
)
def test_a_document_that_is_no_plain_data_is_refused(data: str | bytes, message: str) -> None:
    with pytest.raises(ImageListError) as caught:
        parse(data)
    assert message in caught.value.message


def test_anchors_and_merged_keys_are_read() -> None:
    text = """\
images:
  - &base {name: One, meta: &meta {os_distro: debian, a: b}, versions: &v [{version: 1, url: 'http://h/x'}]}
  - {<<: *base, name: Two, meta: {<<: [*meta, {c: d}], a: other}}
"""
    one, two = parse(text).specs
    assert (one.name, two.name) == ("One 1", "Two 1")
    assert two.properties["a"] == "other" and two.properties["os_distro"] == "debian"
    assert two.properties["c"] == "d" and two.origin.line == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + WHOLE.encode(),
        WHOLE.replace("\n", "\r\n").encode(),
        b"# x\n" * 9 + WHOLE.encode(),
    ],
)
def test_definitions_are_recognised_by_their_content(data: bytes) -> None:
    assert only(parse(data)).name == "Debian 12"


def test_format_says_what_the_content_does_not() -> None:
    reading = Reading(format=ListFormat.DEFINITIONS)
    context = ListContext(HERE, Origin(), Url("https://m.example.org/x"), reading=reading)
    image = b'{"images": [{"name": "x", "versions": [{"version": "1", "url": "http://h/x"}]}]}'
    assert only(parse_list(image, context)).name == "x 1"


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"images:\n- {name: x, versions: [{version: {}, url: []}]}")
@example(b"images:\n- {name: x, versions: [{version: latest, url: [], checksum: [a]}]}")
@example(b'images:\n- {name: "\\ud800", versions: [{version: 1}]}')
def test_any_bytes_end_in_a_result_or_in_an_error(tail: bytes) -> None:
    for data in (b"images:\n" + tail, WHOLE.encode() + tail, WHOLE[:500].encode() + tail):
        try:
            found = parse(data)
        except ImageListError:
            continue
        assert all(isinstance(entry, Spec | Need) for entry in (*found.specs, *found.needs))
