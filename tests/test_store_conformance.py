"""One suite for every ``ImageStore``: the fake must not behave better than the real Glance."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from glancing.errors import CloudError, ConfigError, DownloadError, ErrorKind, StoreError
from glancing.glance import GlanceStore, connect
from glancing.model import ImageChange, ImageStore, NewImage, StoredImage
from glancing.settings import cloud_environment
from tests.fakes import PROJECT, Body, FakeStore
from tests.sandbox import Sandbox
from tests.sandbox.identity import Login

DATA = b"the bytes of an image\n" * 1000
ODD_NAMES = (
    "two\nlines",
    "\u20ac\u202egnp.exe",
    "a \"quoted\" 'name'",
    "a/b~c~1",
    " ",
    "in:a,b",
)

pytestmark = pytest.mark.xdist_group("cloud")  # its real half asks for the sandbox by itself


class Scene(Protocol):
    """A store of one project, and what others and administrators do around it."""

    @property
    def store(self) -> ImageStore: ...

    def of_another_owner(self, name: str, visibility: str) -> str:
        """An active image of another project, shared with and accepted by ours."""
        ...

    def deactivate(self, image_id: str) -> None: ...

    def another_project(self) -> str: ...


class FakeScene:
    def __init__(self) -> None:
        self.store = FakeStore()

    def of_another_owner(self, name: str, visibility: str) -> str:
        image = StoredImage(f"of-{name}", name, "active", visibility, owner="another-project")
        self.store.add(image, DATA, members=[PROJECT])
        return image.id

    def deactivate(self, image_id: str) -> None:
        self.store.set_status(image_id, "deactivated")

    def another_project(self) -> str:
        return "another-project"


class RealScene:
    """One login of each for all tests: logging in is most of the work of a small request."""

    def __init__(self, cloud: Sandbox, store: GlanceStore) -> None:
        self.store = store
        self.cloud = cloud
        self._images = f"{cloud.image_url}/v2/images"
        self._admin, self._other = Login(cloud.admin), Login(cloud.other)
        self._theirs: list[str] = []

    def of_another_owner(self, name: str, visibility: str) -> str:
        record = {"name": name, "disk_format": "raw", "container_format": "bare"}
        image_id: str = self._other.call("POST", self._images, json=record).json()["id"]
        self._theirs.append(image_id)
        url = f"{self._images}/{image_id}"
        octets = {"Content-Type": "application/octet-stream"}
        self._other.call("PUT", f"{url}/file", data=DATA, headers=octets)
        if visibility == "shared":
            with Login(self.cloud.member) as member:
                ours = member.token["project"]["id"]
                self._other.call("POST", f"{url}/members", json={"member": ours})
                member.call("PUT", f"{url}/members/{ours}", json={"status": "accepted"})
        else:
            self._admin.call(
                "PATCH",
                url,
                json=[{"op": "replace", "path": "/visibility", "value": visibility}],
                headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
            )
        return image_id

    def deactivate(self, image_id: str) -> None:
        self._admin.call("POST", f"{self._images}/{image_id}/actions/deactivate")

    def another_project(self) -> str:
        project: str = self._other.token["project"]["id"]
        return project

    def clear(self) -> None:
        """Remove what a test left behind."""
        self.cloud.start_glance()
        while self._theirs:
            self._admin.call("DELETE", f"{self._images}/{self._theirs.pop()}")
        for image in self.store.inventory():
            if image.protected:
                self.store.update(image, ImageChange(protected=False))
            self.store.delete(image.id)


def use(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this the environment's cloud, in the way that the program does."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    adapted = cloud_environment(os.environ)
    for name in adapted.drop:
        monkeypatch.delenv(name)
    for name, value in adapted.assign.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def real_scene(sandbox: Sandbox) -> RealScene:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(sandbox.member.environ(), monkeypatch)
        sandbox.start_glance()
        return RealScene(sandbox, connect(page_images=2))


@pytest.fixture(params=["fake", "real"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    if request.param == "fake":
        yield FakeScene()
        return
    real: RealScene = request.getfixturevalue("real_scene")
    real.clear()
    yield real
    real.clear()


@pytest.fixture
def store(scene: Scene) -> ImageStore:
    return scene.store


def new(name: str = "web.incoming", **properties: str) -> NewImage:
    return NewImage(name, "raw", tags=frozenset({"glancing"}), properties=properties)


def create(store: ImageStore, image: NewImage) -> StoredImage:
    """A record under an id that nobody has."""
    record = store.create(image)
    assert record is not None
    return record


def test_an_id_is_given_once_and_for_ever(store: ImageStore) -> None:
    """Fault 52: creation with an id is a test-and-set, also after its image was deleted."""
    wanted = replace(new(), id=str(uuid.uuid4()))
    record = create(store, wanted)
    assert record.id == wanted.id and store.create(wanted) is None
    store.delete(record.id)
    assert store.get(record.id) is None and store.create(wanted) is None


def test_the_time_is_glances_own(store: ImageStore) -> None:
    record = create(store, new())
    assert record.updated_at is not None
    assert abs((store.now() - record.updated_at).total_seconds()) < 5
    assert store.project_id == record.owner


def filled(
    store: ImageStore, name: str = "web", data: bytes = DATA, **properties: str
) -> StoredImage:
    made = create(store, new(name, **properties))
    store.upload(made.id, Body.sized(data))
    return now(store, made.id)


def now(store: ImageStore, image_id: str) -> StoredImage:
    found = store.get(image_id)
    assert found is not None
    return found


def bytes_of(store: ImageStore, image: StoredImage) -> bytes:
    with store.download(image) as stream:
        return b"".join(stream)


def assert_has_no_data(image: StoredImage) -> None:
    assert image.status == "queued"
    assert (image.size_bytes, image.checksum, image.hash_value) == (None, None, None)
    assert image.digests == ()


# --- records --------------------------------------------------------------------------------------


def test_a_record_starts_private_hidden_and_without_data(store: ImageStore) -> None:
    wanted = NewImage(
        "web.incoming",
        "qcow2",
        tags=frozenset({"glancing", "b c"}),
        properties={"glancing_state": "incoming", "os_distro": "debian"},
        min_disk_gib=3,
        min_ram_mib=512,
    )
    made = create(store, wanted)
    assert (made.name, made.visibility, made.hidden) == ("web.incoming", "private", True)
    assert (made.disk_format, made.container_format) == ("qcow2", "bare")
    assert (made.min_disk_gib, made.min_ram_mib) == (3, 512)
    assert made.tags == wanted.tags and dict(made.properties) == dict(wanted.properties)
    assert made.owner is not None and made.created_at is not None
    assert made.created_at.utcoffset() is not None
    assert_has_no_data(made)
    assert now(store, made.id) == made


def test_what_is_not_there_is_none(store: ImageStore) -> None:
    assert store.get("2f9c1f4e-0000-4000-8000-000000000000") is None


def test_two_records_may_have_one_name(store: ImageStore) -> None:
    assert create(store, new()).id != create(store, new()).id


def test_one_patch_changes_all_that_makes_an_image_current(store: ImageStore) -> None:
    image = filled(store, "web.incoming", glancing_deadline="soon", os_distro="debian")
    change = ImageChange(
        name="web",
        visibility="shared",
        hidden=False,
        protected=True,
        min_disk_gib=3,
        min_ram_mib=512,
        tags=frozenset({"glancing", "new"}),
        properties={"glancing_state": "current", "os_distro": "ubuntu"},
        remove=frozenset({"glancing_deadline", "never_there"}),
    )
    changed = store.update(image, change)
    assert (changed.name, changed.visibility, changed.hidden) == ("web", "shared", False)
    assert changed.protected and changed.tags == {"glancing", "new"}
    assert (changed.min_disk_gib, changed.min_ram_mib) == (3, 512)
    assert dict(changed.properties) == {"glancing_state": "current", "os_distro": "ubuntu"}
    assert (changed.status, changed.checksum) == ("active", image.checksum)
    assert now(store, image.id) == changed
    store.update(changed, ImageChange(protected=False))


def test_a_change_of_nothing_changes_nothing(store: ImageStore) -> None:
    image = create(store, new(os_distro="debian"))
    changed = store.update(image, ImageChange())
    assert (changed.name, dict(changed.properties)) == (image.name, {"os_distro": "debian"})


def test_a_public_image_is_forbidden_to_members_and_nothing_is_changed(store: ImageStore) -> None:
    image = create(store, new(os_distro="debian"))
    change = ImageChange(
        name="web", visibility="public", hidden=False, properties={"os_distro": "ubuntu"}
    )
    with pytest.raises(StoreError) as caught:
        store.update(image, change)
    assert caught.value.kind is ErrorKind.FORBIDDEN and not caught.value.transient
    assert now(store, image.id) == image


def test_an_image_that_is_gone_is_not_changed(store: ImageStore) -> None:
    image = create(store, new())
    store.delete(image.id)
    with pytest.raises(StoreError):
        store.update(image, ImageChange(name="web"))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept_as_they_are(store: ImageStore, name: str) -> None:
    image = create(store, new(name))
    assert image.name == name
    renamed = store.update(image, ImageChange(name=f"{name}!", properties={"glancing_name": name}))
    assert (renamed.name, renamed.properties["glancing_name"]) == (f"{name}!", name)
    assert [found.name for found in store.inventory()] == [f"{name}!"]


@pytest.mark.parametrize("key", ["a/b", "a~b", "~1/~0", "a b", "\u20ac", "a.b:c"])
def test_odd_property_names_are_kept_as_they_are(store: ImageStore, key: str) -> None:
    image = store.update(create(store, new()), ImageChange(properties={key: "1"}))
    image = store.update(image, ImageChange(properties={key: "2"}))
    assert dict(image.properties) == {key: "2"}
    assert dict(store.update(image, ImageChange(remove=frozenset({key}))).properties) == {}


@pytest.mark.parametrize("value", ["", "x" * 16_383, "\u20ac" * 16_383, "a\nb\t\"'\\", "null"])
def test_values_are_kept_as_they_are(store: ImageStore, value: str) -> None:
    image = store.update(create(store, new(first=value)), ImageChange(properties={"then": value}))
    assert dict(now(store, image.id).properties) == {"first": value, "then": value}


def test_names_longer_than_255_characters_are_refused(store: ImageStore) -> None:
    image = create(store, new("n" * 255))
    with pytest.raises(StoreError) as caught:
        create(store, new("n" * 256))
    assert not caught.value.transient
    with pytest.raises(StoreError):
        store.update(image, ImageChange(name="n" * 256))


def test_characters_beyond_the_basic_plane_are_refused(store: ImageStore) -> None:
    """As MySQL's three-byte UTF-8 cannot hold them, Glance takes them from nobody."""
    image = create(store, new())
    with pytest.raises(StoreError) as caught:
        create(store, new("\N{ROCKET}"))
    assert not caught.value.transient
    for change in (
        ImageChange(name="\N{ROCKET}"),
        ImageChange(properties={"\N{ROCKET}": "x"}),
        ImageChange(properties={"x": "\N{ROCKET}"}),
    ):
        with pytest.raises(StoreError):
            store.update(image, change)
    assert now(store, image.id) == image


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("pieces", [(DATA,), (b"a", b"", b"bc"), (b"\0" * (3 << 20), b"x"), ()])
def test_an_upload_makes_the_image_active_with_its_digests(
    store: ImageStore, pieces: tuple[bytes, ...], sized: bool
) -> None:
    data = b"".join(pieces)
    image = create(store, new())
    body = Body.sized(*pieces) if sized else Body(*pieces)
    store.upload(image.id, body)
    image = now(store, image.id)
    assert (image.status, image.size_bytes) == ("active", len(data))
    assert image.checksum == hashlib.md5(data).hexdigest()
    assert image.hash_algorithm == "sha512"
    assert image.hash_value == hashlib.sha512(data).hexdigest()
    assert body.reads == 1
    assert bytes_of(store, image) == data


@pytest.mark.parametrize("sized", [True, False])
def test_a_body_that_breaks_off_leaves_a_record_without_data(
    store: ImageStore, sized: bool
) -> None:
    image = create(store, new())
    error = DownloadError("the source stopped", kind=ErrorKind.INCOMPLETE)

    def stop() -> None:
        wait_until_saving(store, image.id)
        raise error

    with pytest.raises(DownloadError) as caught:
        store.upload(image.id, Interrupted(stop, sized=sized))
    assert caught.value is error
    assert_has_no_data(settled(store, image.id))


def settled(store: ImageStore, image_id: str) -> StoredImage:
    """The image once Glance noticed that the upload ended."""
    for _ in range(200):
        image = now(store, image_id)
        if image.status != "saving":
            return image
    pytest.fail("the image stays in the state saving")


@pytest.mark.parametrize("size_bytes", [len(DATA) - 1, len(DATA) + 1])
def test_a_body_of_another_size_than_announced_leaves_a_record_without_data(
    store: ImageStore, size_bytes: int
) -> None:
    image = create(store, new())
    with pytest.raises(StoreError) as caught:
        store.upload(image.id, Body(DATA, size_bytes=size_bytes))
    assert caught.value.kind is ErrorKind.WRONG_SIZE
    assert_has_no_data(settled(store, image.id))


def test_an_active_image_takes_no_other_data(store: ImageStore) -> None:
    image = filled(store)
    with pytest.raises(StoreError) as caught:
        store.upload(image.id, Body.sized(b"other"))
    assert caught.value.transient
    assert now(store, image.id) == image
    assert bytes_of(store, image) == DATA


def test_an_image_that_is_gone_takes_no_data(store: ImageStore) -> None:
    image = create(store, new())
    store.delete(image.id)
    with pytest.raises(StoreError) as caught:
        store.upload(image.id, Body.sized(DATA))
    assert caught.value.transient


class Interrupted:
    """A body in whose middle something else happens."""

    def __init__(self, meanwhile: Callable[[], object], *, sized: bool = True) -> None:
        self._meanwhile = meanwhile
        self.size_bytes = 2 * len(DATA) if sized else None

    def __iter__(self) -> Iterator[bytes]:
        yield DATA
        self._meanwhile()
        yield DATA


def test_an_image_that_is_deleted_meanwhile_is_gone(store: ImageStore) -> None:
    image = create(store, new())
    with pytest.raises(StoreError) as caught:
        store.upload(image.id, Interrupted(lambda: store.delete(image.id)))
    assert caught.value.transient
    assert store.get(image.id) is None


def test_a_change_during_the_upload_is_undone(store: ImageStore) -> None:
    image = create(store, new())
    seen: list[StoredImage] = []

    def rename() -> None:
        wait_until_saving(store, image.id)
        seen.append(store.update(image, ImageChange(name="renamed", properties={"p": "1"})))

    store.upload(image.id, Interrupted(rename))
    assert seen[0].name == "renamed"
    after = now(store, image.id)
    assert (after.name, after.status, dict(after.properties)) == (image.name, "active", {})


def wait_until_saving(store: ImageStore, image_id: str) -> None:
    for _ in range(200):
        if now(store, image_id).status == "saving":
            return
    pytest.fail("the upload did not start")


@pytest.mark.parametrize("status", ["queued", "deactivated", "gone"])
def test_what_has_no_data_to_give_is_an_error(scene: Scene, status: str) -> None:
    image = filled(scene.store) if status == "deactivated" else create(scene.store, new())
    if status == "deactivated":
        scene.deactivate(image.id)
    if status == "gone":
        scene.store.delete(image.id)
    with pytest.raises(StoreError), scene.store.download(image) as stream:
        list(stream)


def test_a_download_knows_its_size_and_can_be_broken_off(store: ImageStore) -> None:
    image = filled(store, data=b"x" * (1 << 20))
    with store.download(image) as stream:
        assert (stream.size_bytes, stream.end_is_proven) == (1 << 20, True)
        assert next(iter(stream))
        stream.close()
        stream.close()
    assert bytes_of(store, image) == b"x" * (1 << 20)


# --- deleting, sharing ----------------------------------------------------------------------------


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: ImageStore) -> None:
    image = filled(store)
    store.delete(image.id)
    store.delete(image.id)
    assert store.get(image.id) is None and store.inventory() == ()


def test_a_protected_image_is_not_deleted(store: ImageStore) -> None:
    image = store.update(filled(store), ImageChange(protected=True))
    with pytest.raises(StoreError) as caught:
        store.delete(image.id)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert now(store, image.id) == image


def test_a_shared_image_is_shared_once_with_each(scene: Scene) -> None:
    store, other = scene.store, scene.another_project()
    image = store.update(filled(store), ImageChange(visibility="shared"))
    assert store.members(image.id) == ()
    store.add_member(image.id, other)
    store.add_member(image.id, other)
    assert store.members(image.id) == (other,)


def test_a_private_image_has_no_members(scene: Scene) -> None:
    image = filled(scene.store)
    with pytest.raises(StoreError) as caught:
        scene.store.add_member(image.id, scene.another_project())
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert scene.store.members(image.id) == ()


# --- the inventory --------------------------------------------------------------------------------


def test_the_inventory_has_every_image_of_the_project_as_get_has_it(store: ImageStore) -> None:
    images = {filled(store, f"n{number}", p=str(number)).id for number in range(5)}
    shown = next(iter(images))
    store.update(now(store, shown), ImageChange(hidden=False, visibility="community"))
    images.add(create(store, new()).id)
    found = store.inventory()
    assert sorted(image.id for image in found) == sorted(images)
    assert all(image == now(store, image.id) for image in found)


@pytest.mark.parametrize("visibility", ["public", "community", "shared"])
def test_images_of_others_are_not_in_the_inventory(scene: Scene, visibility: str) -> None:
    theirs = scene.of_another_owner("theirs", visibility)
    assert scene.store.get(theirs) is not None
    ours = filled(scene.store)
    assert [image.id for image in scene.store.inventory()] == [ours.id]


def test_an_empty_project_has_an_empty_inventory(store: ImageStore) -> None:
    assert store.inventory() == ()


def test_a_deactivated_image_says_so(scene: Scene) -> None:
    image = filled(scene.store)
    scene.deactivate(image.id)
    assert [found.status for found in scene.store.inventory()] == ["deactivated"]


def test_an_image_that_is_deactivated_may_be_deactivated_again_and_published(
    store: ImageStore,
) -> None:
    image = filled(store)
    for _ in range(2):
        store.deactivate(image.id)
    changed = store.update(now(store, image.id), ImageChange(name="web", hidden=False))
    assert (changed.status, changed.name) == ("deactivated", "web")


def test_what_has_no_data_cannot_be_deactivated(store: ImageStore) -> None:
    image = create(store, new())
    with pytest.raises(StoreError):
        store.deactivate(image.id)


def test_several_threads_may_upload_at_once(store: ImageStore) -> None:
    threads = [threading.Thread(target=filled, args=(store, f"n{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {image.status for image in store.inventory()} == {"active"}
    assert len(store.inventory()) == 4


# --- the real one only ----------------------------------------------------------------------------


def test_members_of_a_project_log_in_with_the_variables_of_the_seed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = sandbox.member.environ()
    use({**environ, "OS_AUTH_URL": sandbox.auth_url.removesuffix("/v3") + "/v2.0/"}, monkeypatch)
    connect().inventory()


def test_an_application_credential_logs_in(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(dict(sandbox.application_credential().environ()), monkeypatch)
    connect().inventory()


def test_a_cloud_of_clouds_yaml_logs_in(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    member = sandbox.member
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(
        f"""
        clouds:
          site:
            region_name: {member.region}
            auth:
              auth_url: {member.auth_url}
              username: {member.username}
              password: {member.password}
              project_name: {member.project}
              user_domain_id: default
              project_domain_id: default
        """
    )
    use({"OS_CLOUD": "site", "OS_CLIENT_CONFIG_FILE": str(clouds)}, monkeypatch)
    connect().inventory()


NOWHERE = {
    "OS_AUTH_URL": "https://127.0.0.1:1/v3",
    "OS_USERNAME": "u",
    "OS_PASSWORD": "p",
    "OS_TENANT_NAME": "t",
}


def refused(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> pytest.ExceptionInfo[CloudError]:
    use(environ, monkeypatch)
    with pytest.raises(CloudError) as caught:
        connect()
    return caught


def test_a_wrong_password_is_a_refused_login(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**sandbox.member.environ(), "OS_PASSWORD": "an-other-password"}
    error = refused(environ, monkeypatch).value
    assert error.kind is ErrorKind.LOGIN_REFUSED and error.hint
    assert "an-other-password" not in str(error)


def test_an_unknown_project_is_a_refused_login(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**sandbox.member.environ(), "OS_TENANT_NAME": "nobodys"}
    assert refused(environ, monkeypatch).value.kind is ErrorKind.LOGIN_REFUSED


def test_a_login_without_a_project_is_refused(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**sandbox.member.environ(), "OS_TENANT_NAME": ""}
    assert refused(environ, monkeypatch).value.kind is ErrorKind.LOGIN_REFUSED


def test_a_region_without_an_image_service_is_an_error_of_the_cloud(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused({**sandbox.member.environ(), "OS_REGION_NAME": "Nowhere"}, monkeypatch).value
    assert "OS_REGION_NAME" in (error.hint or "")


@pytest.mark.parametrize(
    "auth_url",
    [
        "http://cloud.invalid:5000",
    ],
)
def test_a_cloud_that_cannot_be_reached_is_an_error_of_the_cloud(
    monkeypatch: pytest.MonkeyPatch, auth_url: str
) -> None:
    environ = {**NOWHERE, "OS_AUTH_URL": auth_url}
    assert refused(environ, monkeypatch).value.kind is ErrorKind.CLOUD_UNREACHABLE


def test_a_certificate_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    use({**NOWHERE, "OS_CACERT": "/no/such/file.pem"}, monkeypatch)
    with pytest.raises(ConfigError, match=r"/no/such/file\.pem") as caught:
        connect()
    assert "OS_CACERT" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OS_USERNAME": "u", "OS_PASSWORD": "p"},
        {"OS_AUTH_URL": "http://127.0.0.1:1/v3"},
        {"OS_AUTH_URL": "http://127.0.0.1:1/v3", "OS_USERNAME": "u", "OS_TENANT_NAME": "t"},
        {"OS_CLOUD": "nowhere"},
        {**NOWHERE, "OS_AUTH_URL": "no-url"},
        {**NOWHERE, "OS_AUTH_URL": "://"},
    ],
)
def test_no_cloud_is_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    use(environ, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        connect()
    assert caught.value.hint


def test_a_clouds_yaml_that_cannot_be_read_is_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text("clouds: {site: [")
    use({"OS_CLOUD": "site", "OS_CLIENT_CONFIG_FILE": str(clouds)}, monkeypatch)
    with pytest.raises(ConfigError, match=r"clouds\.yaml"):
        connect()


def test_a_cloud_that_goes_away_is_a_transient_error_and_no_empty_inventory(
    real_scene: RealScene,
) -> None:
    real_scene.clear()
    store = real_scene.store
    image = filled(store)
    real_scene.cloud.stop_glance(kill=True)
    attempts: tuple[Callable[[], Any], ...] = (
        store.inventory,
        lambda: create(store, new(glancing_run="r")),
        lambda: store.upload(image.id, Body.sized(DATA)),
    )
    for attempt in attempts:
        with pytest.raises((StoreError, CloudError)) as caught:
            attempt()
        assert caught.value.kind is ErrorKind.CLOUD_UNREACHABLE and caught.value.transient
    real_scene.cloud.start_glance()
    assert [found.id for found in store.inventory()] == [image.id]


# --- a server that says what a test wants ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer; without a status the connection is closed unanswered."""

    status: int | None = None
    document: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Scripted:
    """Answers the requests of one method to one path, query aside, in the order given."""

    def __init__(self, script: Mapping[str, list[Answer]]) -> None:
        self.script = script
        self.seen: list[str] = []
        self.tokens: list[str | None] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                scripted.seen.append(f"{self.command} {self.path}")
                scripted.tokens.append(self.headers["X-Auth-Token"])
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                given = scripted.script[f"{self.command} {urlsplit(self.path).path}"].pop(0)
                if given.status is None:
                    self.close_connection = True
                    return
                body = json.dumps(given.document).encode()
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Renewable(Token):
    """A token in whose place another can be had, as after a login with a password."""

    def invalidate(self) -> bool:
        return True


def store_at(url: str) -> GlanceStore:
    """A store that has a token already and is told where Glance is.

    As in the SDK, the adapter would send again what was answered with 503.
    """
    session = Session(auth=Renewable(url, "a-token"))
    adapter = Adapter(session, endpoint_override=url, status_code_retries=5)
    return GlanceStore(adapter, "a-project")


def record(name: str = "web.incoming", **fields: object) -> dict[str, object]:
    return {"id": "i1", "name": name, "status": "queued", "owner": "a-project", **fields}


def requests_of(store: GlanceStore) -> Mapping[str, Callable[[], object]]:
    image = StoredImage("i1", "web", "active")
    return {
        "GET /images": store.inventory,
        "GET /images/i1": lambda: store.get("i1"),
        "GET /images/i1/file": lambda: store.download(image),
        "GET /images/i1/members": lambda: store.members("i1"),
        "POST /images": lambda: create(store, new()),
        "POST /images/i1/members": lambda: store.add_member("i1", "p"),
        "PUT /images/i1/file": lambda: store.upload("i1", Body.sized(DATA)),
        "PATCH /images/i1": lambda: store.update(image, ImageChange(name="x")),
        "DELETE /images/i1": lambda: store.delete("i1"),
    }


REQUESTS = tuple(requests_of(store_at("http://127.0.0.1:1")))


@pytest.mark.parametrize("request_line", REQUESTS)
def test_no_redirect_is_followed_with_the_token(request_line: str) -> None:
    """Fault 41."""
    with Scripted({}) as trap:
        away = Answer(307, headers={"Location": f"{trap.url}/images"})
        with Scripted({request_line: [away]}) as glance:
            with pytest.raises((StoreError, CloudError), match="307"):
                requests_of(store_at(glance.url))[request_line]()
            assert glance.tokens == ["a-token"]
        assert trap.seen == []


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, ErrorKind.STORE, False),
        (401, ErrorKind.LOGIN_REFUSED, True),
        (403, ErrorKind.FORBIDDEN, False),
        (404, ErrorKind.STORE, True),
        (409, ErrorKind.STORE, True),
        (410, ErrorKind.STORE, True),
        (413, ErrorKind.QUOTA_EXCEEDED, False),
        (415, ErrorKind.REJECTED_FORMAT, False),
        (500, ErrorKind.STORE, True),
        (503, ErrorKind.STORE, True),
    ],
)
def test_what_glance_answers_to_data_says_whether_a_new_record_may_do(
    status: int, kind: ErrorKind, transient: bool
) -> None:
    """Faults 39 and 42: and the data goes out once."""
    answer = Answer(status, headers={"Retry-After": "7"})
    with Scripted({"PUT /images/i1/file": [answer]}) as glance:
        with pytest.raises(StoreError) as caught:
            store_at(glance.url).upload("i1", Body.sized(DATA))
        assert glance.seen == ["PUT /images/i1/file"]
    error = caught.value
    assert (error.kind, error.transient, error.retry_after_s) == (kind, transient, 7.0)


@pytest.mark.parametrize(("run", "ours"), [("r", True), ("another", False)])
def test_a_record_whose_creation_was_not_answered_is_looked_for(run: str, *, ours: bool) -> None:
    """Fault 43: the request may have been carried out all the same, by this run or another."""
    present = Answer(200, record(glancing_run=run))
    with Scripted({"POST /images": [Answer()], "GET /images/i1": [present]}) as glance:
        wanted = replace(new(glancing_run="r"), id="i1")
        if ours:
            assert create(store_at(glance.url), wanted).id == "i1"
        else:
            with pytest.raises(StoreError) as caught:
                store_at(glance.url).create(wanted)
            assert caught.value.transient
        assert glance.seen == ["POST /images", "GET /images/i1"]


def test_a_record_whose_creation_was_not_answered_and_is_not_there_is_an_error() -> None:
    script = {"POST /images": [Answer()], "GET /images/i1": [Answer(404)]}
    with Scripted(script) as glance:
        with pytest.raises(StoreError) as caught:
            store_at(glance.url).create(replace(new(glancing_run="r"), id="i1"))
        assert caught.value.transient
        assert len(glance.seen) == 2


def test_a_connection_that_was_closed_unannounced_is_made_again() -> None:
    """Fault 43."""
    with Scripted({"GET /images/i1": [Answer(), Answer(200, record())]}) as glance:
        found = store_at(glance.url).get("i1")
        assert found is not None and found.name == "web.incoming"


def test_an_inventory_that_breaks_off_between_two_pages_is_no_inventory() -> None:
    first = Answer(200, {"images": [record()], "next": "/v2/images?marker=i1"})
    with Scripted({"GET /images": [first, Answer(400)]}) as glance:
        with pytest.raises(CloudError):
            store_at(glance.url).inventory()
        assert "marker=i1" in glance.seen[1]


def test_an_error_page_is_said_in_one_short_line_without_queries() -> None:
    page = "<html><title>400</title><body>It can&#x27;t\n be /x?sig=s3cr3t &lt;so&gt;" + "o" * 999
    script = {"GET /images/i1": [Answer(400, page)]}
    with Scripted(script) as glance, pytest.raises(StoreError) as caught:
        store_at(glance.url).get("i1")
    message = caught.value.message
    assert "It can't" in message and "<so>" in message
    assert len(message) < 400 and "\n" not in message and "s3cr3t" not in message
