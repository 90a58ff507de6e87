"""The environment with OpenStack's programs: made once for each Python and list, then kept.

It lives in the user's cache directory. Two runs that need it at once wait for each other, and
one that was interrupted half-way is made anew.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.sandbox.service import SandboxError, last_lines

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOREIGN = ("OS_", "GLANCING_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def cache_directory() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "glancing-sandbox"


def fingerprint() -> str:
    """A name for this Python with these requirements."""
    python = f"{sys.executable} {platform.python_version()} {platform.machine()}"
    return hashlib.sha256(python.encode() + REQUIREMENTS.read_bytes()).hexdigest()[:16]


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that the kernel lets go of when its holder dies."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def call(command: Sequence[str | Path], log: Path) -> None:
    """Run one step of the installation."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise SandboxError(f"the sandbox's packages can't be installed\n{last_lines(log)}")


def install(venv: Path, log: Path) -> None:
    """Make the environment from nothing."""
    sys.stderr.write("sandbox: installing Keystone and Glance, once; this takes a minute\n")
    shutil.rmtree(venv, ignore_errors=True)
    log.unlink(missing_ok=True)
    python = venv / "bin" / "python"
    call([sys.executable, "-m", "venv", venv], log)
    call([python, "-m", "pip", "install", "--no-deps", "-r", REQUIREMENTS], log)
    call([python, "-m", "pip", "check"], log)


def environment() -> Path:
    """The directory of the environment, complete; made now if it is not there yet."""
    directory = cache_directory() / fingerprint()
    directory.mkdir(parents=True, exist_ok=True)
    complete = directory / "complete"
    with only_one(directory / "lock"):
        if not complete.exists():
            install(directory / "venv", directory / "install.log")
            complete.touch()
    return directory / "venv"
