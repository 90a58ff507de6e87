"""Glance: its configuration, its process and the log of the requests it has answered."""

import json
import re
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.sandbox import service, uwsgi
from tests.sandbox.service import Service

REQUEST = re.compile(r"^request (\S+) (\S+) (\d+)$")
HEALTH = "/healthcheck"
SETTLE_SECONDS = 2.0
CONFIGURATION = """\
[DEFAULT]
use_stderr = false
log_file = {home}/glance.log
enabled_backends = store:file
worker_self_reference_url = http://127.0.0.1:{port}

[database]
connection = {database}

[glance_store]
default_backend = store

[store]
filesystem_store_datadir = {home}/images

[os_glance_staging_store]
filesystem_store_datadir = {home}/staging

[os_glance_tasks_store]
filesystem_store_datadir = {home}/tasks

[oslo_concurrency]
lock_path = {home}/locks

[oslo_messaging_notifications]
driver = noop

[paste_deploy]
flavor = keystone
config_file = {home}/glance-api-paste.ini

[keystone_authtoken]
www_authenticate_uri = {auth_url}
auth_url = {auth_url}
auth_type = password
username = admin
password = {password}
user_domain_id = default
project_name = admin
project_domain_id = default
"""


class Request(NamedTuple):
    """One request that Glance has answered; the path is as it was sent, with its query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class Glance:
    """Where Glance lives and where it listens."""

    venv: Path
    home: Path
    port: int

    @property
    def url(self) -> str:
        """The address in the catalogue."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its programs find their configuration by."""
        return {**service.plain_environment(self.home), "OS_GLANCE_CONFIG_DIR": str(self.home)}

    @property
    def request_log(self) -> Path:
        """uWSGI's log, with one line for each answered request."""
        return self.home.parent / "glance-uwsgi.log"

    def prepare(self, database: str, auth_url: str, password: str) -> None:
        """Write the configuration and make the tables and directories."""
        self.home.mkdir()
        for name in ("images", "staging", "tasks", "locks"):
            (self.home / name).mkdir()
        shutil.copy(self.venv / "etc" / "glance" / "glance-api-paste.ini", self.home)
        text = CONFIGURATION.format(
            home=self.home, database=database, port=self.port, auth_url=auth_url, password=password
        )
        (self.home / "glance-api.conf").write_text(text)
        program = str(self.venv / "bin" / "glance-manage")
        config = f"--config-file={self.home / 'glance-api.conf'}"
        log = self.home.parent / "glance-manage.log"
        service.run([program, config, "db_sync"], self.environment, log)

    def start(self) -> Service:
        """Start it; return once it answers.

        One that was killed before may hold its port for another moment.
        """
        uwsgi.wait_until_free(self.port)
        logs = (self.request_log, self.home / "glance.log")
        stats = self.home / "stats"
        words = uwsgi.command(self.venv, "glance.wsgi.api:application", self.port, 4, stats)
        running = service.start("Glance", words, self.environment, logs)
        try:
            running.wait_until(lambda: uwsgi.answers(self.url + HEALTH))
        except BaseException:
            running.stop()
            raise
        return running

    def is_idle(self) -> bool:
        """Whether no worker is busy with a request; one that is stopped is idle."""
        try:
            workers = self._stats()["workers"]
        except (OSError, ValueError):
            return True
        return not any(core["in_request"] for worker in workers for core in worker["cores"])

    def requests(self) -> list[Request]:
        """Every request answered so far, but for the sandbox's own look whether it is up.

        A client has its answer a moment before the log has its line; so requests that are
        still under way are given a little time to finish.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self.is_idle() and time.monotonic() < deadline:
            time.sleep(service.POLL_SECONDS)
        lines = self.request_log.read_text(errors="replace").splitlines()
        matches = (REQUEST.match(line) for line in lines)
        seen = (Request(m[1], m[2], int(m[3])) for m in matches if m)
        return [request for request in seen if request.path != HEALTH]

    def _stats(self) -> dict[str, Any]:
        """What uWSGI tells about its workers."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SETTLE_SECONDS)
            client.connect(str(self.home / "stats"))
            with client.makefile("rb") as answer:
                found: dict[str, Any] = json.load(answer)
        return found
