"""A Docker engine: the one that answers, else one of our own for as long as it is needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.sandbox import service

SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class EngineError(RuntimeError):
    """There is no engine and none can be had; the message is one line that says why."""


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """A client of an engine that answers; raises EngineError.

    An engine that was running stays as it is. One that was started here ends with the block, and
    what it has stored (base images, the builder's cache) is kept for the next time.
    """
    client = _connected()
    if client is not None:
        with closing(client):
            yield client
        return
    with tempfile.TemporaryDirectory(prefix="glancing-engine-") as directory:
        daemon = _start(Path(directory) / "dockerd.log")
        try:
            client = _connected()
            assert client is not None
            with closing(client):
                yield client
        finally:
            daemon.stop()


def lacking() -> str | None:
    """Why there can be no engine here, as far as can be told without starting one."""
    client = _connected()
    if client is not None:
        client.close()
        return None
    if "DOCKER_HOST" in os.environ:
        return "no Docker engine answers where DOCKER_HOST points"
    if os.geteuid() != 0:
        return "no Docker engine answers"
    if _which("dockerd") is None and not is_root_on_debian():
        return "no Docker engine answers, and there is no dockerd to start"
    return None


def is_root_on_debian() -> bool:
    """Whether packages may be installed here, and file systems be made."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and bool(_which("apt-get"))


def program(name: str, package: str) -> str:
    """The path of a program; installed first where that can be done. Raises EngineError."""
    found = _which(name)
    if found is None and is_root_on_debian():
        _install(package)
        found = _which(name)
    if found is None:
        raise EngineError(f"{name} is not on this machine and can be installed by root on Debian")
    return found


def _which(name: str) -> str | None:
    return shutil.which(name, path=SYSTEM_PATH)


def _connected() -> docker.DockerClient | None:
    try:
        client = docker.from_env(timeout=600)
    except DockerException:
        return None
    try:
        client.ping()
    except (DockerException, OSError):
        client.close()
        return None
    return client


def _start(log: Path) -> service.Service:
    """Start an engine on the default socket; it dies with this process at the latest."""
    reason = lacking()
    if reason:
        raise EngineError(reason)
    daemon = service.start(
        "dockerd",
        [program("dockerd", "docker.io")],
        {**os.environ, "PATH": SYSTEM_PATH},
        (log,),
        death_signal=signal.SIGTERM,
    )
    try:
        daemon.wait_until(lambda: _connected() is not None)
    except service.SandboxError as error:
        daemon.stop()
        raise EngineError(f"dockerd cannot run here: {_last_words(log)}") from error
    return daemon


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def _install(package: str) -> None:
    sys.stderr.write(f"container tests: installing {package}\n")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    for command in (["apt-get", "update", "-qq"], words):
        done = subprocess.run(
            command,
            env=quiet,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise EngineError(f"{package} cannot be installed: {' '.join(reason)}")
