"""Fault 56: no password, user info or query of an address gets into any output or property."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests import images
from tests.marketplace import BASE, Marketplace, metadata
from tests.program import Program, Run
from tests.servers import BadServer, head
from tests.shelf import Shelf

IMAGE = images.raw()
CANARY = "canary"


@dataclass(slots=True)
class Canaries:
    """Addresses that carry secrets, each with its own."""

    count: int = field(default=0)

    def address(self, url: str) -> str:
        """The same address with user info and a query."""
        self.count += 1
        scheme, _, rest = url.partition("://")
        secrets = [f"{CANARY}{self.count}{part}" for part in ("user", "word", "query")]
        return f"{scheme}://{secrets[0]}:{secrets[1]}@{rest}?token={secrets[2]}"


@pytest.fixture
def market() -> Iterator[Marketplace]:
    with Marketplace({}) as market:
        yield market


def check_silent(run: Run, shelf: Shelf) -> None:
    told = run.output + json.dumps(shelf.all())
    assert CANARY not in told, told
    assert shelf.sandbox.member.password not in told


def test_a_list_full_of_secrets(glancing: Program, shelf: Shelf, market: Marketplace) -> None:
    put = Canaries()
    good = market.publish("good", IMAGE)
    market.files[f"{BASE}/{good}"] = metadata(
        IMAGE,
        put.address(market.url("/images/good-1.img")),
        {"dcterms:title": "good", "dcterms:identifier": good},
    )
    market.files["/bare.raw"] = IMAGE
    market.files["/wrong.xml"] = metadata(
        images.raw(700 * 1024), put.address(market.url("/bare.raw")), {"dcterms:title": "wrong"}
    )
    with BadServer([head(302, location=put.address("ftp://127.0.0.1/x"))]) as elsewhere:
        lines = [
            good,
            put.address(market.url("/bare.raw")),
            put.address(market.url("/bare.raw")),
            put.address(market.url("/absent.raw")),
            put.address(market.url("/wrong.xml")),
            put.address(elsewhere.url("/y.raw")),
            put.address("http://host.invalid/z.raw"),
            put.address("http://127.0.0.1:1/x.raw"),
            put.address("ftp://127.0.0.1/x.raw"),
            put.address("http://127.0.0.1:port/x.raw"),
        ]
        market.files["/vmlist"] = "\n".join(lines).encode()
        words = ["-v", "-l", put.address(market.url("/vmlist")), "-u", put.address(market.base)]
        plan, run = glancing.run("plan", *words), glancing.run("sync", *words)
    assert (plan.exit_code, run.exit_code) == (1, 1)
    assert sorted(row["outcome"] for row in run.rows) == ["failed"] * 8 + ["uploaded"] * 2
    assert shelf.names() == ["bare", "good"]
    check_silent(plan, shelf)
    check_silent(run, shelf)


def test_an_import_full_of_secrets(glancing: Program, shelf: Shelf, market: Marketplace) -> None:
    put = Canaries()
    market.files |= {"/bare.raw": IMAGE, "/SHA256SUMS": b"0" * 64 + b"  bare.raw\n"}
    bare, sums = put.address(market.url("/bare.raw")), put.address(market.url("/SHA256SUMS"))
    refused = glancing.run("import", "-v", bare, "-S", sums)
    absent = glancing.run("import", "-v", bare, "-S", put.address(market.url("/absent")))
    forced = glancing.run("import", "-v", "-f", bare, "-S", sums)
    assert (refused.exit_code, absent.exit_code, forced.exit_code) == (1, 1, 0)
    for run in (refused, absent, forced):
        check_silent(run, shelf)


@pytest.mark.parametrize(
    "words",
    [
        ("sync", "-l", "{}"),
        ("import", "disk.raw", "-u", "{}"),
        ("import", "disk.raw", "-S", "{}"),
        ("import", "disk.raw", "-c", "{}"),
        ("import", "{}", "--absent"),
        ("import", "disk.raw", "{}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "https://127.0.0.1:port/x"])
def test_a_command_line_full_of_secrets(
    glancing: Program, shelf: Shelf, words: tuple[str, ...], url: str
) -> None:
    put = Canaries()
    run = glancing.run(*(word.format(put.address(url)) for word in words))
    assert run.exit_code in (1, 2)
    check_silent(run, shelf)


def test_a_login_full_of_secrets(glancing: Program, shelf: Shelf) -> None:
    (glancing.cwd / "disk.raw").write_bytes(IMAGE)
    put = Canaries()
    logins = (
        {"OS_PASSWORD": f"{CANARY}-wrong-password"},
        {"OS_AUTH_URL": put.address("http://127.0.0.1:1/v3")},
        {"OS_AUTH_URL": put.address("http://host.invalid/v3")},
        {"OS_AUTH_URL": put.address("http://127.0.0.1:1/v2.0")},
    )
    with ThreadPoolExecutor(len(logins)) as threads:  # an unreachable cloud is tried for a while
        runs = list(
            threads.map(lambda login: glancing.run("import", "-v", "disk.raw", **login), logins)
        )
    for run in runs:
        assert run.exit_code == 3, run.output
        check_silent(run, shelf)
