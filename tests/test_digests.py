"""What ``-s`` and ``-S`` mean, whose digest counts, and the lines of our own sums files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glancing.digests import (
    MAX_SUMS_FILE_BYTES,
    is_weak,
    meets,
    override,
    parse_sums,
    parse_sums_file,
    strongest,
    sums_file_name,
    sums_line,
)
from glancing.errors import ConfigError, ErrorKind, ImageListError
from glancing.model import ALGORITHMS, Digest, Expected

MD5 = Digest("md5", "a" * 32)
SHA1 = Digest("sha1", "b" * 40)
SHA224 = Digest("sha224", "c" * 56)
SHA256 = Digest("sha256", "d" * 64)
SHA384 = Digest("sha384", "e" * 96)
SHA512 = Digest("sha512", "f" * 128)
OTHER_MD5 = Digest("md5", "0" * 32)
OTHER_SHA256 = Digest("sha256", "0" * 64)
OTHER_SHA512 = Digest("sha512", "0" * 128)

H = SHA256.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(MD5.value, (MD5,), id="32 digits are md5"),
        pytest.param(SHA1.value, (SHA1,), id="40 digits are sha1"),
        pytest.param(SHA224.value, (SHA224,), id="56 digits are sha224"),
        pytest.param(SHA256.value, (SHA256,), id="64 digits are sha256"),
        pytest.param(SHA384.value, (SHA384,), id="96 digits are sha384"),
        pytest.param(SHA512.value, (SHA512,), id="128 digits are sha512"),
        pytest.param(f"{MD5.value}:{SHA1.value}", (MD5, SHA1), id="colons separate"),
        pytest.param(f"::{MD5.value}:", (MD5,), id="empty parts count for nothing"),
        pytest.param("", (), id="nothing gives nothing"),
        pytest.param(SHA256.value.upper(), (SHA256,), id="upper case is accepted"),
        pytest.param(f" {MD5.value} ", (MD5,), id="space around is accepted"),
        pytest.param(f"sha256:{H}", (SHA256,), id="a name labels the next part"),
        pytest.param(f"SHA-256:{H}", (SHA256,), id="SHA-256 is sha256"),
        pytest.param(f"md5:{MD5.value}:SHA-512:{SHA512.value}", (MD5, SHA512), id="two labels"),
        pytest.param(f"{H}:{H.upper()}", (SHA256,), id="the same twice counts once"),
    ],
)
def test_sums_argument(text: str, expected: tuple[Digest, ...]) -> None:
    """Fault 30: what is accepted after -s."""
    assert parse_sums(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("abc", "'abc'", id="unknown length"),
        pytest.param("g" * 64, "'ggg", id="not hexadecimal"),
        pytest.param("d" * 63 + "٣", "not hexadecimal", id="digits of other scripts"),
        pytest.param("3q2+7w==", "not hexadecimal", id="base64"),
        pytest.param("d" * 32 + " " + "d" * 31, "not hexadecimal", id="space inside"),
        pytest.param(f"md5:{H}", "md5 has 32", id="label and length contradict"),
        pytest.param("sha256", "sha256", id="a label without a digest"),
        pytest.param("sha256:md5:" + MD5.value, "'md5'", id="a label after a label"),
        pytest.param(f"sha3-256:{H}", "sha3-256", id="unknown algorithm"),
        pytest.param(f"{H}:{OTHER_SHA256.value}", "two different sha256", id="conflict"),
    ],
)
def test_bad_sums_argument(text: str, named: str) -> None:
    """Faults 30 and 31: what is refused after -s, naming the part."""
    with pytest.raises(ConfigError, match=named) as caught:
        parse_sums(text)
    assert caught.value.kind is ErrorKind.BAD_DIGEST


PGP = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# disk.img: 5 bytes
SHA256 (disk.img) = {H}
- -dashed
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize(
    ("text", "file_name", "image", "expected"),
    [
        pytest.param(f"{H}  disk.img\n", "SUMS", "disk.img", SHA256, id="GNU text"),
        pytest.param(f"{H} *disk.img\n", "SUMS", "disk.img", SHA256, id="GNU binary"),
        pytest.param(f"{H} disk.img\n", "SUMS", "disk.img", SHA256, id="one space"),
        pytest.param(f"{H}\tdisk.img\n", "SUMS", "disk.img", SHA256, id="a tab"),
        pytest.param(f"{H}  *disk.img\n", "SUMS", "*disk.img", SHA256, id="a name with a star"),
        pytest.param(f"{H}  a b.img\n", "SUMS", "a b.img", SHA256, id="a name with a space"),
        pytest.param(f"\\{H}  a\\nb\\\\c\n", "SUMS", "a\nb\\c", SHA256, id="GNU escaped"),
        pytest.param(f"{H}  a\\nb\n", "SUMS", "a\\nb", SHA256, id="unescaped backslash"),
        pytest.param(f"SHA256 (disk.img) = {H}\n", "SUMS", "disk.img", SHA256, id="BSD"),
        pytest.param(f"SHA256(disk.img)= {H}\n", "SUMS", "disk.img", SHA256, id="OpenSSL"),
        pytest.param(f"SHA2-256(disk.img)= {H}\n", "SUMS", "disk.img", SHA256, id="OpenSSL 3"),
        pytest.param(f"SHA256 (a (1).img) = {H}\n", "SUMS", "a (1).img", SHA256, id="parentheses"),
        pytest.param(f"# x\n\nSHA256 (d) = {H}\n", "SUMS", "d", SHA256, id="comments and blanks"),
        pytest.param(PGP, "CHECKSUM", "disk.img", SHA256, id="PGP clear-signed"),
        pytest.param(f"sha256:{H}  disk.img\n", "SUMS", "disk.img", SHA256, id="prefixed"),
        pytest.param(f"{H}\n", "x", "disk.img", SHA256, id="a bare digest"),
        pytest.param(f"SHA-512:{SHA512.value}", "x", "disk.img", SHA512, id="a bare algo:hex"),
        pytest.param(f"{H.upper()}  disk.img\n", "SUMS", "disk.img", SHA256, id="upper case"),
        pytest.param(f"\ufeff{H}  disk.img\r\n", "SUMS", "disk.img", SHA256, id="BOM and CRLF"),
        pytest.param(f"{H}  ./disk.img\n", "SUMS", "disk.img", SHA256, id="./name"),
        pytest.param(f"{H}  a/b/disk.img\n", "SUMS", "disk.img", SHA256, id="dir/name"),
        pytest.param(f"{H}  a b.img\n", "SUMS", "a%20b.img", SHA256, id="percent-decoded"),
        pytest.param(f"{H}  a%20b.img\n", "SUMS", "a%20b.img", SHA256, id="percent-encoded"),
        pytest.param(f"{H}  d\n{H}  d\n", "SUMS", "d", SHA256, id="the same twice"),
        pytest.param(f"{H}  d", "sha256sum.txt", "d", SHA256, id="no final newline"),
        pytest.param(f"{H}  md5.img\n", "SHA256SUMS", "md5.img", SHA256, id="file name decides"),
        pytest.param(f"{MD5.value}\n", "sha256.img.md5", "sha256.img", MD5, id="suffix decides"),
        pytest.param(f"MD5 (d) = {MD5.value}\n", "SHA256SUMS", "d", MD5, id="label before name"),
    ],
)
def test_checksum_file(text: str, file_name: str, image: str, expected: Digest) -> None:
    assert parse_sums_file(text.encode(), file_name, [image]) == (expected,)


def test_every_algorithm_of_an_image_is_taken() -> None:
    text = f"MD5 (d) = {MD5.value}\nSHA256 (other) = {OTHER_SHA256.value}\nSHA256 (d) = {H}\n"
    assert parse_sums_file(text.encode(), "CHECKSUM", ["d"]) == (MD5, SHA256)


def test_names_that_are_not_utf8_match_those_of_the_file_system() -> None:
    data = H.encode() + b"  d\xff.img\n"
    assert parse_sums_file(data, "SUMS", [os.fsdecode(b"d\xff.img")]) == (SHA256,)
    assert parse_sums_file(data, "SUMS", ["d%FF.img"]) == (SHA256,)


@pytest.mark.parametrize(
    ("text", "file_name", "message"),
    [
        pytest.param(f"{H}  disk.img.xz\n", "SUMS", "no digest of disk.img", id="a longer name"),
        pytest.param(f"{H}  old-disk.img\n", "SUMS", "no digest of disk.img", id="a suffix"),
        pytest.param(f"{H}   disk.img\n", "SUMS", "no digest of disk.img", id="a leading space"),
        pytest.param("", "SUMS", "no digest of disk.img", id="an empty file"),
        pytest.param("# disk.img\n", "SUMS", "no digest of disk.img", id="only comments"),
        pytest.param("<html>\n<b>404</b>\n", "SUMS", "no digest of disk.img", id="a web page"),
        pytest.param(f"{H}\n{H}\n", "SUMS", "no digest of disk.img", id="two bare digests"),
        pytest.param(
            f"{H}  disk.img\n{'0' * 64}  disk.img\n", "SUMS", "two different sha256", id="conflict"
        ),
        pytest.param(
            f"{H}  a/disk.img\n{'0' * 64}  b/disk.img\n", "SUMS", "two different", id="two folders"
        ),
        pytest.param("abc  disk.img\n", "SUMS", "bad digest of disk.img", id="an odd length"),
        pytest.param(f"{'x' * 64}  disk.img\n", "SUMS", "not hexadecimal", id="not hexadecimal"),
        pytest.param(f"MD5 (disk.img) = {H}\n", "SUMS", "md5 has 32", id="label against length"),
        pytest.param(f"{H}  disk.img\n", "SHA512SUMS", "sha512 has 128", id="name against length"),
        pytest.param(f"{SHA512.value}  disk.img\n", "B2SUMS", "'b2'", id="blake2 is not sha512"),
        pytest.param(f"{H}  disk.img\n", "disk.sha3-256", "sha3-256", id="sha3 is not sha256"),
        pytest.param(f"BLAKE2b (disk.img) = {H}\n", "SUMS", "BLAKE2b", id="unknown label"),
        pytest.param(f"{H}  disk.img\n{PGP[:60]}", "SUMS", "not one whole PGP", id="cut PGP"),
        pytest.param(PGP + PGP, "SUMS", "not one whole PGP", id="two PGP messages"),
        pytest.param(
            PGP.replace("Hash: SHA256", f"{H}  disk.img"), "SUMS", "headers", id="PGP header text"
        ),
        pytest.param(
            f"{H}  disk.img\n" + PGP.replace("disk.img", "x"), "SUMS", "no digest", id="unsigned"
        ),
        pytest.param(f"{H}  disk.img\0\n", "SUMS", "UTF-16 or binary", id="NUL"),
    ],
)
def test_bad_checksum_file(text: str, file_name: str, message: str) -> None:
    with pytest.raises(ImageListError, match=message) as caught:
        parse_sums_file(text.encode(), file_name, ["disk.img"])
    assert caught.value.kind is ErrorKind.BAD_DIGEST


def test_utf16_and_huge_checksum_files_are_refused() -> None:
    with pytest.raises(ImageListError, match="UTF-16"):
        parse_sums_file(f"{H}  d\n".encode("utf-16"), "SUMS", ["d"])
    with pytest.raises(ImageListError, match="more than"):
        parse_sums_file(b" " * (MAX_SUMS_FILE_BYTES + 1), "SUMS", ["d"])


def test_a_file_without_the_image_says_what_it_has() -> None:
    text = "".join(f"{H}  image{n}\n" for n in range(5))
    with pytest.raises(ImageListError) as caught:
        parse_sums_file(text.encode(), "SUMS", ["disk.img"])
    assert caught.value.hint == "it names image0, image1, image2 and 2 more"


LINES = st.sampled_from(
    [
        f"{H}  d",
        f"{H} *d",
        f"\\{H}  d",
        f"MD5 (d) = {MD5.value}",
        "(d) =",
        ") = ) = (",
        *PGP.split("\n"),
    ]
)


@given(
    st.binary()
    | st.lists(LINES | st.text()).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
)
@example(b"\\ (d) = ")
def test_no_checksum_file_breaks_the_parser(data: bytes) -> None:
    try:
        digests = parse_sums_file(data, "SUMS", ["d"])
    except ImageListError:
        return
    assert digests


@given(st.text() | st.lists(st.sampled_from(["md5", MD5.value, H, ":", ""])).map(":".join))
def test_no_argument_breaks_the_parser(text: str) -> None:
    try:
        parse_sums(text)
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("digests", "requirement", "expected"),
    [
        pytest.param((), "any", False, id="nothing is not any"),
        pytest.param((MD5,), "any", True, id="md5 is any"),
        pytest.param((MD5,), "sha256", False, id="md5 is weaker than sha256"),
        pytest.param((SHA224,), "sha256", False, id="sha224 is weaker than sha256"),
        pytest.param((MD5, SHA256), "sha256", True, id="one of them is enough"),
        pytest.param((SHA512,), "sha256", True, id="stronger is enough"),
        pytest.param((SHA512,), "SHA-512", True, id="other spellings"),
        pytest.param((SHA384,), "sha512", False, id="sha384 is weaker than sha512"),
        pytest.param((), "md5", False, id="nothing is not md5"),
    ],
)
def test_required_digests(digests: tuple[Digest, ...], requirement: str, expected: bool) -> None:
    """Fault 32: --require-digest."""
    assert meets(digests, requirement) is expected


def test_an_unknown_requirement_is_refused() -> None:
    with pytest.raises(ConfigError, match="crc32"):
        meets((MD5,), "crc32")


def test_strength() -> None:
    assert strongest(()) is None
    assert strongest((SHA1, SHA384, SHA256)) == SHA384
    assert is_weak((MD5, SHA1))
    assert not is_weak((MD5, SHA256))
    assert not is_weak(())


@pytest.mark.parametrize(
    ("metadata", "sums", "files", "expected", "notes"),
    [
        pytest.param(Expected(), (), (), Expected(), (), id="nothing changes nothing"),
        pytest.param(
            Expected(published=(MD5,)),
            (SHA256,),
            (),
            Expected(published=(MD5, SHA256)),
            (),
            id="-s takes the published side where the metadata gives it",
        ),
        pytest.param(
            Expected(image=(MD5,)),
            (SHA256,),
            (),
            Expected(image=(MD5, SHA256)),
            (),
            id="-s takes the image's side where the metadata gives it",
        ),
        pytest.param(
            Expected(),
            (SHA256,),
            (),
            Expected(either=(SHA256,)),
            (),
            id="-s takes either side where the metadata gives none",
        ),
        pytest.param(
            Expected(published=(MD5,), image=(MD5,)),
            (SHA256,),
            (),
            Expected(published=(MD5,), image=(MD5,), either=(SHA256,)),
            (),
            id="-s takes either side where the metadata gives both",
        ),
        pytest.param(
            Expected(),
            (),
            (SHA256,),
            Expected(published=(SHA256,)),
            (),
            id="-S is of the published file",
        ),
        pytest.param(
            Expected(),
            (MD5,),
            (SHA256,),
            Expected(published=(SHA256,), either=(MD5,)),
            (),
            id="-S does not decide the side of -s",
        ),
        pytest.param(
            Expected(image=(SHA256, MD5)),
            (OTHER_SHA256,),
            (),
            Expected(image=(MD5, OTHER_SHA256)),
            (f"{SHA256} (image) gives way to -s",),
            id="-s replaces the metadata's digest of its algorithm only",
        ),
        pytest.param(
            Expected(image=(SHA256,)),
            (),
            (OTHER_SHA256,),
            Expected(published=(OTHER_SHA256,)),
            (f"{SHA256} (image) gives way to -S",),
            id="-S replaces across sides",
        ),
        pytest.param(
            Expected(published=(SHA512, MD5)),
            (OTHER_SHA512,),
            (SHA512, OTHER_MD5),
            Expected(published=(OTHER_MD5, OTHER_SHA512)),
            (f"{MD5} (published) gives way to -S", f"{SHA512} (published) gives way to -s"),
            id="-s before -S before metadata",
        ),
        pytest.param(
            Expected(published=(SHA256,)),
            (SHA256,),
            (SHA256,),
            Expected(published=(SHA256,)),
            (),
            id="agreement needs no note",
        ),
    ],
)
def test_authority(
    metadata: Expected,
    sums: tuple[Digest, ...],
    files: tuple[Digest, ...],
    expected: Expected,
    notes: tuple[str, ...],
) -> None:
    """Fault 31: -s counts more than -S, and -S more than the metadata."""
    assert override(metadata, sums=sums, sums_files=files) == (expected, notes)


def test_overriding_keeps_what_is_no_digest() -> None:
    metadata = Expected(image_size_bytes=5, disk_format="raw")
    changed, _ = override(metadata, sums=(MD5,))
    assert (changed.image_size_bytes, changed.disk_format) == (5, "raw")


def test_sums_files_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="-S contradicts itself"):
        override(Expected(), sums_files=(MD5, OTHER_MD5))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "name",
    [
        b"disk.img",
        b" sp *",
        b"a\nb",
        b"a\rb",
        b"a\\b",
        b"\\",
        b"\xff\xfe",
        b"tab\tq\"'",
        "ü€".encode(),
    ],
)
def test_lines_are_those_of_coreutils(tmp_path: Path, algorithm: str, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"bytes")
    command = [f"{algorithm}sum".encode(), b"--", name]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    digest = Digest(algorithm, hashlib.new(algorithm, b"bytes").hexdigest())
    assert os.fsencode(sums_line(digest, os.fsdecode(name))) == printed
    assert parse_sums_file(printed, sums_file_name(algorithm), [os.fsdecode(name)]) == (digest,)


def test_sums_files_have_their_customary_names() -> None:
    assert [sums_file_name(a) for a in ("md5", "sha512")] == ["MD5SUMS", "SHA512SUMS"]
