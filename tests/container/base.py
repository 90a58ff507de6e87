"""A base for the image where no registry can be reached: Debian with Python, made by debootstrap.

It is what the default base is, Debian 13 with Python 3.13, and is kept by the engine under a tag
that changes with this recipe and with what this machine trusts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.container.engine import SYSTEM_PATH, EngineError, is_root_on_debian, program

DEFAULT_BASE = "python:3.13-slim"
REPOSITORY = "glancing-test-base"
SUITE = "trixie"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "gpgv")
TRUSTED = "etc/ssl/certs/ca-certificates.crt"
PIP_CONFIGURATION = f"[global]\ncert = /{TRUSTED}\n"
_TRUST_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def base_image(client: docker.DockerClient) -> str:
    """The name of a base to build on; where none can be made, the default, which is pulled."""
    if not is_root_on_debian():
        return DEFAULT_BASE
    trusted = _trusted()
    recipe = f"{SUITE} {PACKAGES} {PIP_CONFIGURATION}".encode() + trusted
    tag = f"{SUITE}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    name = f"{REPOSITORY}:{tag}"
    try:
        client.images.get(name)
    except ImageNotFound:
        _make(client, tag, trusted)
    return name


def _trusted() -> bytes:
    """The authorities that this machine trusts; a proxy on the way may have one of its own."""
    named = (os.environ.get(variable, "") for variable in _TRUST_VARIABLES)
    default = ssl.get_default_verify_paths().cafile or f"/{TRUSTED}"
    found = next((path for path in (*named, default) if path and Path(path).is_file()), None)
    return Path(found).read_bytes() if found else b""


def _make(client: docker.DockerClient, tag: str, trusted: bytes) -> None:
    sys.stderr.write("container tests: making a base image, once; this takes a minute\n")
    debootstrap = program("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(prefix="glancing-base-", dir="/var/tmp") as directory:
        root, archive = Path(directory) / "root", Path(directory) / "root.tar"
        included = ",".join(PACKAGES)
        _run(debootstrap, "--variant=minbase", f"--include={included}", SUITE, str(root))
        _finish(root, trusted)
        _run("tar", "-C", str(root), "-cf", str(archive), ".")
        client.api.import_image(src=str(archive), repository=REPOSITORY, tag=tag)


def _finish(root: Path, trusted: bytes) -> None:
    for leftover in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover, ignore_errors=True)
    if trusted:
        (root / TRUSTED).write_bytes(trusted)
        (root / "etc" / "pip.conf").write_text(PIP_CONFIGURATION)


def _run(*command: str) -> None:
    environ = {**os.environ, "PATH": SYSTEM_PATH}
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
