"""What every test gets: no way to any cloud but the sandbox, and the sandbox itself.

The variables that name a cloud are taken out of the environment before the first test is
loaded. Images are only ever deleted on the sandbox that this run has started.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults import table
from tests.program import Program
from tests.sandbox import Sandbox
from tests.sandbox.identity import Credentials, Login
from tests.shelf import Shelf

LONGEST_NAME = 80


def strip_environment() -> None:
    """Forget every cloud and every setting of the surrounding environment."""
    for name in list(os.environ):
        if name.startswith(("OS_", "GLANCING_")):
            del os.environ[name]


strip_environment()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, all that need the sandbox stay together and share one.

    First, because xdist looks for the mark in the same hook.
    """
    for item in items:
        if isinstance(item, pytest.Function) and "sandbox" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("cloud"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Call long data by its length and a digest: whole images make no good names of tests."""
    data = val.encode("utf-8", "surrogatepass") if isinstance(val, str) else val
    if not isinstance(data, bytes) or len(data) <= LONGEST_NAME:
        return None
    return f"{len(data)}-bytes-{hashlib.sha256(data).hexdigest()[:8]}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Proofs(), "proofs")


class Proofs:
    """Writes after a full run which of the tests that passed prove which fault."""

    def __init__(self) -> None:
        self._passed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.add(
                report.nodeid.removeprefix("tests/").partition("[")[0].partition("@")[0]
            )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        option, source = session.config.option, session.config.args_source
        chosen = (
            option.keyword or option.markexpr or option.deselect or getattr(option, "lf", False)
        )
        is_worker = hasattr(session.config, "workerinput")
        if not chosen and not is_worker and source is not pytest.Config.ArgsSource.ARGS:
            table.write(self._passed)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The one sandbox of this run; where it can't be started, the tests fail."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def clean_cloud(sandbox: Sandbox) -> Sandbox:
    """The sandbox with Glance running and without images of the member and the other project."""
    sandbox.start_glance()
    for owner in (sandbox.member, sandbox.other):
        delete_images(sandbox, owner)
    return sandbox


@pytest.fixture(scope="session")
def stock(sandbox: Sandbox) -> Iterator[Shelf]:
    """The member's images, whatever they are; logged in once, as each login costs."""
    sandbox.start_glance()
    with Shelf(sandbox) as shelf:
        yield shelf


@pytest.fixture
def shelf(sandbox: Sandbox, stock: Shelf) -> Iterator[Shelf]:
    """An empty Glance; whatever a test does, no run may leave an image unfinished."""
    sandbox.start_glance()
    empty(stock)
    yield stock
    assert stock.incoming() == []


def empty(shelf: Shelf) -> None:
    """Delete all images of the member."""
    delete_images_of(shelf.sandbox, shelf.login)


@pytest.fixture
def glancing(shelf: Shelf, tmp_path: Path) -> Program:
    """The program, logged in to the sandbox as its member, in a folder of its own."""
    return Program(tmp_path, shelf.sandbox.member.environ())


def refuse_other_clouds(sandbox: Sandbox, login: Login) -> None:
    """Fail unless the cloud is the sandbox's own, on this machine's loopback address."""
    catalogue = login.token["catalog"]
    endpoints = [e["url"] for s in catalogue if s["type"] == "image" for e in s["endpoints"]]
    for url in (login.auth_url, sandbox.auth_url, sandbox.image_url, *endpoints):
        if urlsplit(url).hostname != "127.0.0.1":
            pytest.fail(f"refusing to delete images: {url} is not a sandbox")
    if login.auth_url != sandbox.auth_url or set(endpoints) != {sandbox.image_url}:
        pytest.fail(f"refusing to delete images: {login.auth_url} is not this run's sandbox")


def delete_images(sandbox: Sandbox, owner: Credentials) -> None:
    """Delete every image that the owner's project has, hidden and protected ones too."""
    with Login(owner) as login:
        delete_images_of(sandbox, login)


def delete_images_of(sandbox: Sandbox, login: Login) -> None:
    """Delete every image of a project that somebody is logged in to."""
    refuse_other_clouds(sandbox, login)
    project = login.token["project"]["id"]
    for hidden in ("false", "true"):
        query = {"owner": project, "os_hidden": hidden, "limit": "1000"}
        images = login.call("GET", f"{sandbox.image_url}/v2/images", params=query).json()
        for image in images["images"]:
            delete_image(login, f"{sandbox.image_url}/v2/images/{image['id']}", image)


def delete_image(login: Login, url: str, image: dict[str, object]) -> None:
    """Delete one image, taking its protection off first."""
    if image["protected"]:
        login.call(
            "PATCH",
            url,
            json=[{"op": "replace", "path": "/protected", "value": False}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )
    login.call("DELETE", url)
