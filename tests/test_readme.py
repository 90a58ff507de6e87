"""What the README tells users is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from glancing.cli import glancing
from glancing.errors import ErrorKind, ExitCode
from glancing.model import ImageResult, Origin, Outcome, Url
from glancing.report import RunResult, as_document

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
_NOUNS = "source|backup|cloud|digest|download|glance|image|library|list|program|run|work_dir"
EVENT = re.compile(rf'"((?:{_NOUNS})\.[a-z_0-9]+)"')


def table(header: str) -> list[list[str]]:
    """The rows of the table whose first column has this header."""
    lines = README.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented_flags() -> set[tuple[str, str, str]]:
    """Command, flag and variable, for every row and every command of the row."""
    found = set()
    for row in table("flag"):
        commands = glancing.commands if row[2] == "all" else row[2].split(", ")
        found |= {(command, flag, code(row[1])[0]) for command in commands for flag in code(row[0])}
    return found


def real_flags() -> set[tuple[str, str, str]]:
    return {
        (name, flag, str(option.envvar))
        for name, command in glancing.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and option.envvar
        for flag in option.opts
    }


def test_flags_and_variables() -> None:
    assert documented_flags() == real_flags()


def test_every_option_has_the_variable_of_its_name() -> None:
    for name, command in glancing.commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                long_name = next(opt for opt in option.opts if opt.startswith("--"))
                expected = "GLANCING_" + long_name[2:].replace("-", "_").upper()
                assert option.envvar == expected, f"{name} {long_name}"


def test_commands() -> None:
    documented = {code(row[0])[0].split()[1] for row in table("command")}
    assert documented == set(glancing.commands)


def test_exit_codes() -> None:
    assert [int(row[0]) for row in table("exit code")] == sorted(ExitCode)


def test_error_kinds() -> None:
    documented = [kind for row in table("`error.kind`") for kind in code(row[0])]
    assert sorted(documented) == sorted(ErrorKind)


def test_events() -> None:
    documented = {event for row in table("event") for event in code(row[0])}
    source = "".join(path.read_text() for path in (ROOT / "glancing").rglob("*.py"))
    # A refused entry is an image that failed; an image's event is named by its outcome.
    emitted = set(EVENT.findall(source)) - {"list.entry_refused"}
    emitted |= {f"image.{outcome.value}" for outcome in Outcome}
    assert documented == emitted


def test_the_result_has_the_documented_fields() -> None:
    image = ImageResult("n", "d", Origin(), "upload", "r", Outcome.UPLOADED)
    block = README[README.index('{"schema": 1') :].partition("```")[0]
    documented = set(re.findall(r'"([a-z_]+)":', block))
    document = as_document(RunResult("r", "sync", images=(image,)))
    real = {*document, *document["counts"], *document["images"][0]}
    assert documented == real


@pytest.mark.parametrize("old", ["-n", "-s", "-S", "-c", "-b", "-d", "-f", "-D", "-k", "-v"])
def test_the_letters_of_the_seed(old: str) -> None:
    assert any(flag == old for command, flag, _ in real_flags() if command == "import")


def test_commands_that_the_readme_shows_can_be_parsed() -> None:
    shown = re.findall(r"`glancing ((?:import|sync|plan|hash) [^`…\[]*)`", README)
    assert len(shown) > 5
    for words in shown:
        name, *arguments = words.split()
        if name == "import" and arguments == ["DESCRIPTOR"]:
            continue
        arguments = [word.replace("URL", "https://example.org/u") for word in arguments]
        arguments = [word.replace("MD5", "d" * 32) for word in arguments]
        glancing.commands[name].make_context(name, arguments, resilient_parsing=False)


def test_a_url_never_prints_its_secrets() -> None:
    url = Url("https://user:secret@example.org/a?token=secret#secret")
    assert "secret" not in f"{url} {url!r} {url.public}"
