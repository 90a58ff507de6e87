"""``glancing hash`` writes what the programs of coreutils print."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.images import noise
from tests.marketplace import image_id
from tests.program import Program

ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
ODD_NAMES = (
    "plain",
    "two words",
    " leading and trailing ",
    "back\\slash",
    "new\nline",
    "*star",
    "ümlaut",
    os.fsdecode(b"latin-\xe4"),
    "folder/file",
    "-dashed",
    image_id("-like-an-id"),
)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "folder").mkdir()
    for number, name in enumerate(ODD_NAMES):
        (tmp_path / name).write_bytes(noise(number * 100_000, number))
    return Program(tmp_path)


def coreutils(algorithm: str, names: tuple[str, ...], folder: Path) -> bytes:
    words = [f"{algorithm}sum", "--", *names]
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(words, cwd=folder, env=environ, check=True, capture_output=True).stdout


def sums_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith("SUMS"))


def test_the_files_are_those_of_coreutils(program: Program) -> None:
    run = program.run("hash", "--", *ODD_NAMES)
    assert run.exit_code == 0
    for algorithm in ALGORITHMS:
        written = (program.cwd / f"{algorithm.upper()}SUMS").read_bytes()
        assert written == coreutils(algorithm, ODD_NAMES, program.cwd)
    assert sums_files(program.cwd) == sorted(f"{name.upper()}SUMS" for name in ALGORITHMS)
    assert [file["name"] for file in run.result["files"]] == list(ODD_NAMES)
    assert set(run.result["files"][0]["digests"]) == set(ALGORITHMS)


def test_a_name_like_an_id_is_no_option(program: Program) -> None:
    names = (image_id("-like-an-id"),)
    assert program.run("hash", *names).exit_code == 0
    assert (program.cwd / "MD5SUMS").read_bytes() == coreutils("md5", names, program.cwd)


@pytest.mark.parametrize("flag", ["-d", "--directory"])
def test_they_go_to_a_directory(program: Program, flag: str) -> None:
    run = program.run("hash", flag, "folder", "plain")
    assert run.exit_code == 0 and len(run.result["written"]) == len(ALGORITHMS)
    assert sums_files(program.cwd) == []
    assert len(sums_files(program.cwd / "folder")) == len(ALGORITHMS)


def test_a_file_that_exists_is_an_error_and_nothing_is_written(program: Program) -> None:
    existing = program.cwd / "SHA512SUMS"
    existing.write_text("kept\n")
    run = program.run("hash", "plain")
    assert run.exit_code == 2 and "SHA512SUMS" in run.result["error"]["message"]
    assert sums_files(program.cwd) == ["SHA512SUMS"] and existing.read_text() == "kept\n"


@pytest.mark.parametrize("flag", ["-f", "--overwrite"])
def test_it_is_overwritten_when_asked(program: Program, flag: str) -> None:
    (program.cwd / "SHA512SUMS").write_text("old\n")
    assert program.run("hash", flag, "plain").exit_code == 0
    written = (program.cwd / "SHA512SUMS").read_bytes()
    assert written == coreutils("sha512", ("plain",), program.cwd)


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        (("plain", "absent"), 1, "absent"),
        (("plain", "folder"), 1, "folder"),
        (("-d", "absent", "plain"), 2, "absent"),
        ((), 2, "FILES"),
    ],
)
def test_what_cannot_be_read_or_written_is_named_and_nothing_is_written(
    program: Program, words: tuple[str, ...], exit_code: int, says: str
) -> None:
    run = program.run("hash", *words)
    assert run.exit_code == exit_code and says in run.result["error"]["message"]
    assert sums_files(program.cwd) == []
