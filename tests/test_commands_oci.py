"""Images out of an OCI registry, over real HTTPS into the real Glance."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest

from tests import images
from tests.program import Program
from tests.registry import Registry, layer, manifest
from tests.servers import Authority, ImageServer
from tests.shelf import Shelf

OLD, NEW, OTHER = (images.raw(64 * 1024 + 512 * number) for number in range(3))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def registry(authority: Authority) -> Iterator[Registry]:
    with Registry(tls=authority.server()) as registry:
        yield registry


@pytest.fixture
def sync(glancing: Program, authority: Authority) -> Program:
    trusted = {"SSL_CERT_FILE": str(authority.file)}
    return replace(glancing, environ={**glancing.environ, **trusted})


def test_a_tag_is_kept_up_to_date(sync: Program, shelf: Shelf, registry: Registry) -> None:
    """Annotations become properties; a digest that is the same costs no download."""
    notes = {"org__openstack__glance__os_distro": "tiny", "eu__egi__cloud__tag": "1"}
    registry.push("22.04", OLD, manifest(layer(OLD, **notes)))
    (sync.cwd / "vmlist").write_text(registry.reference(":22.04"))
    run = sync.run("sync", "-l", "vmlist")
    assert (run.outcomes, run.row["integrity"]) == ({"tiny-22.04": "uploaded"}, "published")
    image = shelf.named("tiny-22.04")
    assert (image["os_distro"], image["eu.egi.cloud.tag"]) == ("tiny", "1")
    seen = len(registry.requests)
    assert sync.run("sync", "-l", "vmlist").outcomes == {"tiny-22.04": "unchanged"}
    assert not any("/blobs/" in path for path in registry.paths()[seen:])
    registry.push("22.04", NEW)
    assert sync.run("sync", "-l", "vmlist").outcomes == {"tiny-22.04": "replaced"}
    assert (shelf.data("tiny-22.04"), shelf.data("tiny-22.04_old")) == (NEW, OLD)


def test_a_pattern_stands_for_the_tags_that_fit(
    sync: Program, shelf: Shelf, registry: Registry
) -> None:
    for number, tag in enumerate(["20.04", "22.04", "24.04", "beta", "latest"]):
        registry.push(tag, images.raw(64 * 1024 + 512 * number))
    (sync.cwd / "vmlist").write_text(registry.reference(":2[24].*"))
    run = sync.run("sync", "-l", "vmlist")
    assert run.outcomes == {"tiny-22.04": "uploaded", "tiny-24.04": "uploaded"}
    assert shelf.names() == ["tiny-22.04", "tiny-24.04"]


def test_a_layer_that_is_not_what_the_manifest_says(
    sync: Program, shelf: Shelf, registry: Registry
) -> None:
    """Fault 29."""
    reference = registry.push("1", OLD)
    registry.blobs = dict.fromkeys(registry.blobs, NEW)
    (sync.cwd / "vmlist").write_text(f"{reference} name=tiny")
    run = sync.run("sync", "-l", "vmlist")
    assert run.row["outcome"] == "failed" and shelf.all() == []
    assert run.row["error"]["kind"] in ("wrong-digest", "wrong-size")


def test_a_token_needs_a_login_and_goes_to_the_registry_alone(
    sync: Program, shelf: Shelf, registry: Registry, authority: Authority
) -> None:
    """Fault 16: where the registry redirects to sees neither the login nor the token."""
    registry.push("1", OLD)
    registry.login = "Basic " + base64.b64encode(b"me:secret").decode()
    words = ("import", registry.reference(":1"))
    assert sync.run(*words).row["error"]["kind"] == "http-status"
    host = registry.reference("").split("/")[2]
    login = f"'{host}':\n  basic: {{username: me, password: secret}}\n"
    (sync.cwd / "logins").write_text(login)
    (sync.cwd / "logins").chmod(0o600)
    with ImageServer({"/blob": OLD}, tls=authority.server()) as storage:
        registry.redirect = storage.url("/blob")
        run = sync.run(*words, "--source-auth", "logins", "--allow-network", "127.0.0.0/8")
    assert run.outcomes == {"tiny-1": "uploaded"} and shelf.data("tiny-1") == OLD
    assert all("authorization" not in request.headers for request in storage.requests)
    assert "secret" not in run.output and "a-token" not in run.output


def test_import_brings_one_image(sync: Program, shelf: Shelf, registry: Registry) -> None:
    registry.push("1", OLD)
    run = sync.run("import", registry.reference(":*"))
    assert run.exit_code == 1 and "several images" in run.row["error"]["message"]
    digest = sha256(OLD).hexdigest()
    run = sync.run("import", registry.reference(":1"), "-n", "mine", "-s", digest)
    assert run.outcomes == {"mine": "uploaded"} and shelf.names() == ["mine"]
