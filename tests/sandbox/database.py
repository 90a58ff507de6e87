"""PostgreSQL, where both services keep their records.

It comes with the sandbox's packages (pgserver) for Python 3.11 and 3.12 and from the Debian
package postgresql otherwise. It is reached through a socket in the sandbox's own directory,
never through the network. PostgreSQL refuses to run as root, so root starts it as another
account, with a copy of its programs that this account can read.
"""

import os
import pwd
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox import service
from tests.sandbox.service import Account, SandboxError, Service

ACCOUNTS = ("postgres", "nobody")
# Nothing here has to survive a power cut, and commits are many and small.
HASTE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class Database:
    """A running PostgreSQL with one empty database for each service."""

    service: Service
    sockets: Path
    password: str
    bin_directory: Path

    def url(self, name: str) -> str:
        """How SQLAlchemy reaches one of the databases."""
        return f"postgresql+psycopg2://postgres:{self.password}@/{name}?host={self.sockets}"

    def execute(self, name: str, statement: str) -> None:
        """Change one of the databases by hand: it is the only way to some states of a service."""
        words = ["-h", str(self.sockets), "-U", "postgres", "-d", name, "-v", "ON_ERROR_STOP=1"]
        environment = service.plain_environment(self.sockets)
        service.run(
            [str(self.bin_directory / "psql"), "-q", *words],
            {**environment, "PGPASSWORD": self.password},
            self.sockets.parent / "psql.log",
            text=statement,
        )


def account() -> Account:
    """Whom to run it as: the user as is, or for root an account without rights."""
    if os.geteuid() != 0:
        return service.UNCHANGED
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ACCOUNTS:
        if name in known:
            return Account(known[name].pw_uid, known[name].pw_gid)
    raise SandboxError(f"as root, PostgreSQL needs one of the accounts {', '.join(ACCOUNTS)}")


def packaged(venv: Path) -> Path | None:
    """pgserver's directory in the environment, where there is a build for this Python."""
    return next(venv.glob("lib/python3*/site-packages/pgserver"), None)


def readable_copy(package: Path, target: Path) -> Path:
    """Copy pgserver's programs and the libraries they look for beside them."""
    shutil.copytree(package / "pginstall", target / "pgserver" / "pginstall", symlinks=True)
    libraries = package.with_name("pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return target / "pgserver" / "pginstall" / "bin"


def newest_first(bin_directory: Path) -> int:
    """Sort key of /usr/lib/postgresql/VERSION/bin."""
    version = bin_directory.parent.name
    return -int(version) if version.isdigit() else 0


def programs(venv: Path, target: Path) -> Path:
    """The directory of initdb and postgres."""
    package = packaged(venv)
    if package is not None:
        if os.geteuid() == 0:
            return readable_copy(package, target)
        return package / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=newest_first)
    for candidate in installed:
        if (candidate / "postgres").exists():
            return candidate
    found = shutil.which("postgres")
    if found is None:
        raise SandboxError(
            "the sandbox needs PostgreSQL, which has no wheel for this Python:"
            " install the Debian package postgresql, or use Python 3.11 or 3.12"
        )
    return Path(found).resolve().parent


def initialise(bin_directory: Path, home: Path, runs_as: Account, password: str) -> None:
    """Make the files of an empty PostgreSQL and in it one database for each service."""
    log = home / "database-setup.log"
    environment = service.plain_environment(home)
    pwfile = home / "password"
    pwfile.write_text(password)
    for path in (home, pwfile):
        os.chown(path, runs_as.uid, runs_as.gid)
    data = str(home / "data")
    initdb = [str(bin_directory / "initdb"), "-D", data, "-U", "postgres", "-E", "UTF8"]
    initdb += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={pwfile}", "--no-sync"]
    service.run(initdb, environment, log, runs_as)
    pwfile.unlink()
    single = [str(bin_directory / "postgres"), "--single", "-F", "-D", data, "postgres"]
    service.run(
        single, environment, log, runs_as, "CREATE DATABASE keystone\nCREATE DATABASE glance\n"
    )


def start(venv: Path, home: Path) -> Database:
    """Make and start PostgreSQL in the directory; return once it answers."""
    runs_as = account()
    home.mkdir()
    bin_directory = programs(venv, home)
    password = secrets.token_hex(16)
    initialise(bin_directory, home, runs_as, password)
    settings = ["listen_addresses=", f"unix_socket_directories={home}", *HASTE]
    running = service.start(
        "PostgreSQL",
        [str(bin_directory / "postgres"), "-D", str(home / "data")]
        + [word for setting in settings for word in ("-c", setting)],
        service.plain_environment(home),
        (home.parent / "postgresql.log",),
        account=runs_as,
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
    )
    try:
        running.wait_until(lambda: is_ready(home / "data" / "postmaster.pid"))
    except BaseException:
        running.stop()
        raise
    return Database(running, home, password, bin_directory)


def is_ready(status: Path) -> bool:
    """Whether PostgreSQL's own status file says that it takes connections."""
    try:
        lines = status.read_text().splitlines()
    except FileNotFoundError:
        return False
    return bool(lines) and lines[-1].strip() == "ready"
