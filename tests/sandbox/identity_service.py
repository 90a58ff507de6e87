"""Keystone: its configuration, its first administrator and its process."""

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox import service, uwsgi
from tests.sandbox.service import Service

REGION = "RegionOne"
# The cache makes logins and the checks of tokens ten times as fast; each of the two processes has
# one of its own, so what a test takes away from a user may still count for some minutes.
CONFIGURATION = """\
[DEFAULT]
use_stderr = false
log_file = {home}/keystone.log

[database]
connection = {database}

[cache]
enabled = true
backend = dogpile.cache.memory

[fernet_tokens]
key_repository = {home}/fernet

[fernet_receipts]
key_repository = {home}/fernet

[credential]
key_repository = {home}/credential

[identity]
password_hash_rounds = 4
"""


def write_keys(repository: Path) -> None:
    """Make a key to sign with and the next one, as `keystone-manage fernet_setup` does.

    That command insists on being told a user that has a name, which not every container has.
    """
    repository.mkdir(mode=0o700)
    for name in ("0", "1"):
        (repository / name).write_bytes(base64.urlsafe_b64encode(secrets.token_bytes(32)))


@dataclass(frozen=True, slots=True)
class Keystone:
    """Where Keystone lives and where it listens."""

    venv: Path
    home: Path
    port: int

    @property
    def url(self) -> str:
        """The address that clients log in at."""
        return f"http://127.0.0.1:{self.port}/v3"

    @property
    def environment(self) -> dict[str, str]:
        """What its programs find their configuration by."""
        return {
            **service.plain_environment(self.home),
            "OS_KEYSTONE_CONFIG_DIR": str(self.home),
        }

    def manage(self, *arguments: str) -> None:
        """Run one of Keystone's maintenance commands."""
        program = str(self.venv / "bin" / "keystone-manage")
        config = f"--config-file={self.home / 'keystone.conf'}"
        log = self.home.parent / "keystone-manage.log"
        service.run([program, config, *arguments], self.environment, log)

    def prepare(self, database: str, admin_password: str) -> None:
        """Write the configuration, make the tables, the keys and the administrator."""
        self.home.mkdir()
        text = CONFIGURATION.format(home=self.home, database=database)
        (self.home / "keystone.conf").write_text(text)
        for repository in ("fernet", "credential"):
            write_keys(self.home / repository)
        self.manage("db_sync")
        endpoints = [f"--bootstrap-{kind}-url={self.url}" for kind in ("public", "internal")]
        self.manage(
            "bootstrap",
            f"--bootstrap-password={admin_password}",
            f"--bootstrap-region-id={REGION}",
            *endpoints,
        )

    def start(self) -> Service:
        """Start it; return once it answers."""
        logs = (self.home.parent / "keystone-uwsgi.log", self.home / "keystone.log")
        stats = self.home / "stats"
        words = uwsgi.command(self.venv, "keystone.wsgi.api:application", self.port, 2, stats)
        running = service.start("Keystone", words, self.environment, logs)
        try:
            running.wait_until(lambda: uwsgi.answers(self.url))
        except BaseException:
            running.stop()
            raise
        return running
