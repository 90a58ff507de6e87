"""Builds the image as anybody would, with the classic builder, on a base of one's choice."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import BuildError

from tests.container.engine import EngineError

ROOT = Path(__file__).resolve().parents[2]
TAG = "glancing:test"
# The builder knows these without an ARG, and keeps them out of the image's history.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Built:
    """The image and what it stands on; ``seconds`` is little when the builder's cache had it."""

    tag: str
    config: dict[str, Any]
    size_bytes: int
    base_bytes: int
    seconds: float


def build(client: docker.DockerClient, base: str, version: str) -> Built:
    """Build the image of this checkout; raises EngineError with the end of the builder's log."""
    names = (*_PROXIES, *(name.lower() for name in _PROXIES))
    proxies = {name: os.environ[name] for name in names if name in os.environ}
    began_s = time.monotonic()
    try:
        image, _log = client.images.build(
            path=str(ROOT),
            tag=TAG,
            rm=True,
            forcerm=True,
            network_mode="host",
            buildargs={"BASE_IMAGE": base, "VERSION": version, **proxies},
        )
    except BuildError as error:
        log = "".join(line.get("stream", "") for line in error.build_log)
        raise EngineError(f"the image cannot be built: {error}\n{log[-4000:]}") from error
    return Built(
        tag=TAG,
        config=image.attrs["Config"],
        size_bytes=image.attrs["Size"],
        base_bytes=client.images.get(base).attrs["Size"],
        seconds=time.monotonic() - began_s,
    )
