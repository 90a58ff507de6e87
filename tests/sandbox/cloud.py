"""The sandbox as a whole: what is started in which order, and that all of it is taken down."""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.sandbox import database, identity, packages, uwsgi
from tests.sandbox.identity import ApplicationCredential, Credentials, Login
from tests.sandbox.identity_service import Keystone
from tests.sandbox.image_service import Glance, Request
from tests.sandbox.service import SandboxError, Service

LONGEST_PATH = 60
PREFIX = "glancing-sandbox-"
ALIVE = "alive"


class Sandbox:
    """A cloud of one's own, from `with` to its end.

    `member` is who the program under test works as; `other` is a stranger with a project of
    its own; `admin` may do everything and is there to set scenes.
    """

    auth_url: str
    image_url: str
    data_dir: Path
    admin: Credentials
    member: Credentials
    other: Credentials

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._glance_service: Service | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def glance_requests(self) -> list[Request]:
        """The method, path and status of every request that Glance has answered so far."""
        return self._glance.requests()

    def stop_glance(self, *, kill: bool = False) -> None:
        """Stop Glance, in good order or as a crash would; what it has stored stays."""
        if self._glance_service is not None:
            self._glance_service.stop(kill=kill)
            self._glance_service = None

    def start_glance(self) -> None:
        """Start Glance where it was before; nothing happens when it runs."""
        if self._glance_service is None:
            self._glance_service = self._glance.start()

    def set_image(self, image_id: str, *, status: str | None = None, age_s: float = 0) -> None:
        """Give an image a status that a crash leaves, and an age in seconds, behind Glance's back.

        A time counts from now; so the age is how long ago the image was made and last changed.
        """
        image = str(uuid.UUID(image_id))
        moment = f"(now() AT TIME ZONE 'UTC') - interval '{float(age_s)} seconds'"
        changes = [f"created_at = {moment}", f"updated_at = {moment}"]
        if status is not None:
            changes.append(f"status = '{status}'")
        statement = f"UPDATE images SET {', '.join(changes)} WHERE id = '{image}';\n"
        self._records.execute("glance", statement)

    def application_credential(self, owner: Credentials | None = None) -> ApplicationCredential:
        """Make an application credential, for the member unless another owner is named."""
        return identity.application_credential(owner or self.member)

    def _start(self, stack: ExitStack) -> None:
        """Start everything, each part with what takes it down again."""
        venv = packages.environment()
        self.data_dir = _directory(stack)
        records = self._records = database.start(venv, self.data_dir / "pg")
        stack.callback(records.service.stop)
        identity_port, image_port = uwsgi.free_ports(2)
        keystone = Keystone(venv, self.data_dir / "keystone", identity_port)
        self._glance = Glance(venv, self.data_dir / "glance", image_port)
        self.auth_url, self.image_url = keystone.url, self._glance.url
        password = secrets.token_urlsafe(16)
        self.admin = Credentials(self.auth_url, "admin", password, "admin")

        def start_identity() -> None:
            keystone.prepare(records.url("keystone"), password)
            stack.callback(keystone.start().stop, kill=True)

        def start_images() -> None:
            self._glance.prepare(records.url("glance"), self.auth_url, password)
            stack.callback(self.stop_glance, kill=True)
            self.start_glance()

        _together(start_identity, start_images)
        self._populate()

    def _populate(self) -> None:
        """Make the catalogue's entry for images and the two ordinary users."""
        with Login(self.admin) as admin:
            identity.register_images(admin, self.image_url)
            self.member = identity.add_member(admin, "glancing")
            self.other = identity.add_member(admin, "other")


def _together(*steps: Callable[[], None]) -> None:
    """Do several things at once; return, or raise the first failure, when all have ended."""
    with ThreadPoolExecutor(len(steps)) as threads:
        running = [threads.submit(step) for step in steps]
    for step in running:
        step.result()


def _is_suitable(directory: Path) -> bool:
    """Whether services can work below the directory.

    The path of a socket is limited to some hundred bytes, and what root starts as another
    account has to get there.
    """
    if len(os.fsencode(directory)) > LONGEST_PATH or not os.access(directory, os.W_OK):
        return False
    above = (directory, *directory.parents)
    return os.geteuid() != 0 or all(path.stat().st_mode & stat.S_IXOTH for path in above)


def _sweep(place: Path) -> None:
    """Remove the directories of sandboxes that were killed before they could do it.

    A sandbox holds a lock on a file in its directory; the kernel lets go of it when it dies.
    """
    for alive in place.glob(f"{PREFIX}*/{ALIVE}"):
        try:
            if alive.parent.stat().st_uid != os.geteuid() or alive.parent.is_symlink():
                continue
            with alive.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(alive.parent, ignore_errors=True)
        except OSError:
            continue  # in use, or just being removed by another


def _directory(stack: ExitStack) -> Path:
    """A new directory for everything the services write, removed in the end."""
    places = (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp"))
    place = next(filter(_is_suitable, places), None)
    if place is None:
        raise SandboxError(f"none of {', '.join(map(str, places))} can be used by the services")
    _sweep(place)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    path.chmod(0o711)
    lock = stack.enter_context((path / f"{ALIVE}.new").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    (path / f"{ALIVE}.new").rename(path / ALIVE)
    return path
