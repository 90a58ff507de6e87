"""Runs the image in containers, under flags of ``docker run``, and reads what came of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer, Mount

from tests.program import PATIENCE_S, Run, read_run

# Its side container would have to be pulled; containers are removed by their ``with`` blocks.
testcontainers_config.ryuk_disabled = True


@dataclass(frozen=True, slots=True)
class Container:
    """How to run the image: flags and variables that all runs share."""

    image: str
    flags: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, flags: Sequence[str] = (), **variables: str) -> Run:
        """Run to the end."""
        with self.start(*arguments, flags=flags, **variables) as contained:
            return contained.finish()

    def start(self, *arguments: str, flags: Sequence[str] = (), **variables: str) -> Contained:
        """Start a run; without arguments it is the image's own command."""
        options = docker_options([*self.flags, *flags])
        options["environment"] = {**self.environ, **options["environment"], **variables}
        return Contained(self.image, list(arguments), options)


class Contained:
    """A run under way in a container, which is removed at the end of its ``with`` block."""

    def __init__(self, image: str, arguments: list[str], options: dict[str, Any]) -> None:
        environ, volumes, tmpfs = (options.pop(key) for key in ("environment", "volumes", "tmpfs"))
        self._container = DockerContainer(image, env=environ)
        self._container.with_command(arguments).with_kwargs(network="host", **options)
        self._container.volumes = volumes
        self._container.tmpfs = tmpfs
        self._began_s = 0.0

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        self._container.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.stop()

    def send(self, signal: str) -> None:
        """Send a signal to the program, which is process 1 in there."""
        self._container.get_wrapped_container().kill(signal=signal)

    def peak_memory_bytes(self) -> int | None:
        """The most resident memory so far; None where this machine cannot look into it."""
        container = self._container.get_wrapped_container()
        container.reload()
        status = Path(f"/proc/{container.attrs['State']['Pid']}/status")
        if not status.exists():
            return None
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024

    def wait(self, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """The exit code, stdout and stderr, once it has ended."""
        container = self._container.get_wrapped_container()
        code: int = container.wait(timeout=timeout_s)["StatusCode"]
        out, err = (
            container.logs(stdout=stdout, stderr=not stdout).decode() for stdout in (True, False)
        )
        container.reload()
        assert not container.attrs["State"]["OOMKilled"], f"out of memory\n{out}\n{err}"
        return code, out, err

    def finish(self, timeout_s: float = PATIENCE_S) -> Run:
        """Wait for the end, and read what it told."""
        code, out, err = self.wait(timeout_s)
        return read_run(code, out, err, time.monotonic() - self._began_s)


def docker_options(flags: Sequence[str]) -> dict[str, Any]:
    """The words of Docker's API for flags of ``docker run``; an unknown flag is an error."""
    given = _parser().parse_args(list(flags))
    return {
        "user": given.user,
        "group_add": given.group_add,
        "read_only": given.read_only,
        "security_opt": given.security_opt,
        "cap_drop": given.cap_drop,
        "cap_add": given.cap_add,
        "mem_limit": given.memory,
        "memswap_limit": given.memory_swap,
        "nano_cpus": given.cpus and int(given.cpus * 1e9),
        "working_dir": given.workdir,
        "entrypoint": given.entrypoint and [given.entrypoint],
        "tmpfs": dict(each.split(":", 1) for each in given.tmpfs),
        "volumes": dict(_volume(each) for each in given.volume),
        "environment": dict(each.split("=", 1) for each in given.env),
    }


def _volume(text: str) -> tuple[str, Mount]:
    source, target, *mode = text.split(":")
    return source, {"bind": target, "mode": mode[0] if mode else "rw"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="docker run", exit_on_error=False, allow_abbrev=False)
    for name in ("--user", "--workdir", "--entrypoint", "--stop-timeout"):
        parser.add_argument(name)
    for name in ("--memory", "--memory-swap"):
        parser.add_argument(name, type=int)
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--read-only", action="store_true")
    several = ("--group-add", "--security-opt", "--cap-drop", "--cap-add")
    for name in (*several, "--tmpfs", "--volume", "--env"):
        parser.add_argument(name, action="append", default=[])
    return parser
