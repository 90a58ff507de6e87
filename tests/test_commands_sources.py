"""Where remote words lead, logins, mirrors: faults 15, 16, 33 and 56 with the whole program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.marketplace import Marketplace, metadata
from tests.program import Program
from tests.servers import BadServer, ImageServer, Request, head
from tests.shelf import Shelf

IMAGE = images.raw()


@pytest.fixture
def market() -> Iterator[Marketplace]:
    with Marketplace({}) as market:
        yield market


def point_inside(market: Marketplace, name: str, inner: BadServer) -> str:
    """Metadata that names a host of which the operator never said a word."""
    identifier = market.publish(name, IMAGE)
    document = metadata(
        IMAGE,
        f"http://localhost:{inner.port}/secret.img",
        {"dcterms:identifier": identifier, "dcterms:title": name},
    )
    market.files[f"/marketplace/metadata/{identifier}"] = document
    return identifier


def test_metadata_does_not_lead_inside(
    market: Marketplace, glancing: Program, tmp_path: Path
) -> None:
    """Fault 15: refused before a byte is sent; the other entries go on."""
    with ImageServer({"/secret.img": IMAGE}) as inner:
        inside, good = point_inside(market, "inside", inner), market.publish("good", IMAGE)
        (tmp_path / "vmlist").write_text(f"{inside}\n{good}\n")
        for command in ("plan", "sync"):
            run = glancing.run(command, "-l", "vmlist", "-u", market.base)
            assert run.exit_code == 1
            assert run.row_of(inside)["error"]["kind"] == "forbidden-address"
        assert run.row_of(good)["outcome"] == "uploaded"
        assert inner.connections == 0


def test_a_private_network_can_be_allowed(
    market: Marketplace, glancing: Program, tmp_path: Path
) -> None:
    """Fault 15: as a network, or by the operator's own list naming the host."""
    with ImageServer({"/secret.img": IMAGE, "/own.img": IMAGE}) as inner:
        inside = point_inside(market, "inside", inner)
        (tmp_path / "vmlist").write_text(f"{inside}\n")
        network = ("--allow-network", "127.0.0.0/8", "--allow-network", "::1")
        run = glancing.run("sync", "-d", "-l", "vmlist", "-u", market.base, *network)
        assert run.exit_code == 0
        (tmp_path / "vmlist").write_text(f"{inside}\nhttp://localhost:{inner.port}/own.img\n")
        run = glancing.run("sync", "-d", "-l", "vmlist", "-u", market.base)
        assert run.outcomes == {"inside": "planned", "own": "planned"}


def test_a_fetched_list_does_not_name_local_files(
    market: Marketplace, glancing: Program, tmp_path: Path
) -> None:
    """Fault 15: a canary file beside the run is never opened."""
    (tmp_path / "canary.img").write_bytes(IMAGE)
    market.files["/list"] = (
        f"canary.img\nfile://{tmp_path}/canary.img\n{tmp_path}/canary.img".encode()
    )
    run = glancing.run("sync", "-l", market.url("/list"))
    assert run.exit_code == 1
    assert [row["outcome"] for row in run.rows] == ["failed"] * 3


def closed(request: Request) -> list[bytes]:
    if request.headers.get("authorization") != "Bearer canary-token":
        return [head(401, content_length=0)]
    return [head(content_length=len(IMAGE)), b"" if request.method == "HEAD" else IMAGE]


def test_a_login_for_a_source(shelf: Shelf, glancing: Program, tmp_path: Path) -> None:
    """Faults 16 and 56: the token opens the source, and is in no output and no property."""
    with BadServer(closed) as server:
        (tmp_path / "logins").write_text(f"{server.origin}: {{bearer: canary-token}}\n")
        (tmp_path / "vmlist").write_text(f"{server.url('/closed.img')}\n")
        refused = glancing.run("sync", "-l", "vmlist")
        assert (refused.exit_code, refused.row["error"]["kind"]) == (1, "http-status")
        run = glancing.run("sync", "-v", "-l", "vmlist", "--source-auth", "logins")
        assert run.outcomes == {"closed": "uploaded"}
        assert "canary-token" not in run.output + str(shelf.all())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1: {bearer: [canary-token]}", "one line"),
        ("127.0.0.1: {certificate: {file: gone.pem}}", "gone.pem cannot be read"),
        (None, "No such file"),
    ],
)
def test_a_file_of_logins_that_cannot_be_used(
    text: str | None, said: str, glancing: Program, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "logins").write_text(text)
    (tmp_path / "vmlist").write_text("http://127.0.0.1:9/x.img\n")
    run = glancing.run("sync", "-l", "vmlist", "--source-auth", "logins")
    assert run.exit_code == 2 and said in run.result["error"]["message"]
    assert "canary" not in run.output


# --- mirrors, and what their word is worth --------------------------------------------------------

BROKEN = {
    "gone": lambda: BadServer([head(404, content_length=0)]),
    "wrong bytes": lambda: BadServer([head(content_length=len(IMAGE)), IMAGE[::-1]]),
    "cut short": lambda: BadServer([head(content_length=len(IMAGE)), IMAGE[:1000]]),
    "a web page": lambda: BadServer([head(content_length=17), b"<html>Moved</html"]),
}


@pytest.mark.parametrize("trouble", BROKEN)
def test_mirrors_are_tried_in_turn(
    trouble: str, market: Marketplace, glancing: Program, tmp_path: Path
) -> None:
    """What is missing, cut or wrong at the first location is taken from the second."""
    with BROKEN[trouble]() as first:
        identifier = market.publish("mirrored", IMAGE)
        path = f"/marketplace/metadata/{identifier}"
        document = market.files[path]
        assert isinstance(document, bytes)
        second = b"<slterms:location>" + market.url("/images/").encode()
        one = f"<slterms:location>{first.url()}</slterms:location>".encode()
        market.files[path] = document.replace(second, one + second)
        (tmp_path / "vmlist").write_text(f"{identifier}\n")
        run = glancing.run("sync", "-l", "vmlist", "-u", market.base)
        assert (run.exit_code, run.outcomes) == (0, {"mirrored": "uploaded"})
        (passed,) = run.named("source.passed_over")
        assert passed["source"] == first.url() and passed["reason"]
        again = glancing.run("sync", "-l", "vmlist", "-u", market.base)
        assert again.outcomes == {"mirrored": "unchanged"}


@pytest.mark.parametrize(
    ("sums", "integrity"),
    [
        ("the same server", "transport"),
        ("a local file", "published"),
        ("the same server and -s", "published"),
    ],
)
def test_digests_over_plain_http_are_worth_less(
    sums: str, integrity: str, market: Marketplace, glancing: Program, tmp_path: Path
) -> None:
    """Fault 33: they show accidents, and not what an attacker did to both."""
    digest = hashlib.sha256(IMAGE).hexdigest()
    market.files |= {"/x.raw": IMAGE, "/SHA256SUMS": f"{digest}  x.raw\n".encode()}
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  x.raw\n")
    given = {
        "the same server": ("-S", market.url("/SHA256SUMS")),
        "a local file": ("-S", "SHA256SUMS"),
        "the same server and -s": ("-S", market.url("/SHA256SUMS"), "-s", digest),
    }
    run = glancing.run("import", market.url("/x.raw"), *given[sums])
    assert run.exit_code == 0
    assert run.row["integrity"] == integrity
