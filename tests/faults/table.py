"""Which test proves that which fault or attack does no harm: read from the tests' docstrings.

A test names numbers in its docstring (``Fault 15: …``, ``Faults 39, 41 to 43 and P2: …``); what a
module's docstring names holds for all its tests. The numbers are stable.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_name("TABLE.md")

TITLES: Mapping[str, str] = {
    "1": "a body cut short of its Content-Length",
    "2": "a cut that nothing shows: no length, no digest",
    "3": "a cut between chunks",
    "4": "lengths that lie, contradict each other or are negative",
    "5": "a server that ignores Range",
    "6": "another part than the one asked for",
    "7": "a file that changes between two attempts",
    "8": "416 when everything has arrived",
    "9": "an endless body",
    "10": "a drip, in the body or in the headers",
    "11": "encodings that nobody asked for",
    "12": "redirects in a circle, or too many",
    "13": "a redirect from https to http",
    "14": "a redirect to another scheme",
    "15": "remote words that lead inside or name local files",
    "16": "credentials carried to another origin",
    "17": "certificates that are wrong",
    "18": "busy servers and Retry-After",
    "19": "decompression bombs",
    "20": "a compressed stream cut short",
    "21": "something after the compressed stream",
    "22": "zip files that lie",
    "23": "tar archives (OVA)",
    "24": "hostile XML",
    "25": "hostile JSON",
    "26": "disk images that reach for other files, and polyglots",
    "27": "another disk format than declared",
    "28": "images too short to tell",
    "29": "wrong digests",
    "30": "digests in every spelling",
    "31": "digests that contradict each other",
    "32": "weak digests alone",
    "33": "digests over plain http from where the image comes from",
    "34": "expired lists, clocks, rollback",
    "35": "bad signatures",
    "36": "encodings of lists",
    "37": "lists of 100,000 lines",
    "38": "hostile names",
    "39": "401 on the upload",
    "40": "a token that runs out",
    "41": "redirects from Glance or Keystone",
    "42": "every status in every phase",
    "43": "answers that are lost",
    "44": "Glance killed and started again",
    "45": "a declared size that is wrong",
    "46": "Glance stores other bytes",
    "47": "the copy of the old image goes wrong",
    "48": "a refused delete",
    "49": "images of others, and of the same name",
    "50": "SIGTERM and SIGINT at any request",
    "51": "kill -9 at any request",
    "52": "runs at once, dead and alive",
    "53": "a full disk",
    "54": "read-only root, no home, no passwd entry",
    "55": "256 MiB of memory and a sparse 10 GiB image",
    "56": "secrets in any output",
    "57": "names that break logs",
    "58": "a reader that went away",
    "P1": "only verified bytes under a name",
    "P2": "never a moment without an image",
    "P3": "one run after any crash converges",
    "P4": "bounded memory",
    "P5": "bounded disk",
    "P6": "no secret leaves",
    "P7": "no address that was not allowed",
    "P8": "bounded time without progress",
    "P9": "exit code and result tell the truth",
}

_NUMBER = r"(?:P\d|\d+)"
_NAMED = re.compile(
    rf"\b(?:[Ff]aults?|[Pp]romises?)\s+({_NUMBER}(?:(?:\s+to\s+|,\s+and\s+|,\s+|\s+and\s+){_NUMBER})*)"
)
_ALONE = re.compile(r"\bP\d\b")


def numbers_in(docstring: str | None) -> set[str]:
    """The numbers that a docstring names."""
    found = set(_ALONE.findall(docstring or ""))
    for words in _NAMED.findall(docstring or ""):
        found.update(re.findall(_NUMBER, words))
        for first, last in re.findall(r"(\d+)\s+to\s+(\d+)", words):
            found.update(str(number) for number in range(int(first), int(last) + 1))
        for first, last in re.findall(r"P(\d)\s+to\s+P(\d)", words):
            found.update(f"P{number}" for number in range(int(first), int(last) + 1))
    return found & TITLES.keys()


@functools.cache
def proofs() -> dict[str, list[str]]:
    """By number, the tests that name it, as ``module::test``."""
    found: dict[str, list[str]] = {number: [] for number in TITLES}
    for path in sorted(TESTS.rglob("test_*.py")):
        for test, numbers in _tests_of(path):
            for number in numbers:
                found[number].append(test)
    return found


def _tests_of(path: Path) -> Iterator[tuple[str, set[str]]]:
    tree = ast.parse(path.read_text())
    of_all = numbers_in(ast.get_docstring(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            numbers = of_all | numbers_in(ast.get_docstring(node))
            yield f"{path.relative_to(TESTS)}::{node.name}", numbers


def as_markdown(found: Mapping[str, list[str]], most: int = 4) -> str:
    """The table: tests that name a number themselves first, and how many more there are."""
    rows = [
        "Which tests prove what: those that passed in the last full run (`python3 -m tests`).",
        "",
        "| number | fault, attack or promise | tests |",
        "|---|---|---|",
    ]
    for number, tests in found.items():
        shown = "<br>".join(f"`{test}`" for test in tests[:most])
        more = f"<br>and {len(tests) - most} more" if len(tests) > most else ""
        rows.append(f"| {number} | {TITLES[number]} | {shown}{more} |")
    return "\n".join([*rows, ""])


def write(passed: Collection[str]) -> None:
    """Write the table of those tests that passed to its file."""
    found = {
        number: [test for test in tests if test in passed] for number, tests in proofs().items()
    }
    FILE.write_text(as_markdown(found))
