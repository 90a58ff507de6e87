"""One service's process: started, watched until it is ready, stopped together with its children.

Only what was started here is ever stopped. A service that fails to start is reported with the
last lines of its logs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
LOG_LINES = 30
POLL_SECONDS = 0.05
READY_SECONDS = 120.0
STOP_SECONDS = 10.0

# The kernel counts a process as orphaned when the thread that started it ends, not only when
# the whole program does; so services are started from one thread that lasts as long as the run.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-starter")


class SandboxError(RuntimeError):
    """The sandbox could not be started or used; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account a program runs under; the numbers -1 leave it unchanged."""

    uid: int = -1
    gid: int = -1


UNCHANGED = Account()


def last_lines(*logs: Path) -> str:
    """The end of every log that exists, each under its name."""
    parts = []
    for log in logs:
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            parts.append("\n".join([f"--- {log.name}", *lines]))
    return "\n".join(parts)


def plain_environment(home: Path) -> dict[str, str]:
    """An environment in which no cloud and no proxy of the surrounding one is known."""
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "*",
        "no_proxy": "*",
        "TMPDIR": str(home),
        "TZ": "UTC",
    }


def leashed(command: Sequence[str], death_signal: int, account: Account) -> list[str]:
    """The command, tied to this process's life."""
    numbers = (os.getpid(), death_signal, account.uid, account.gid)
    return [sys.executable, "-I", str(LEASH), *(str(number) for number in numbers), *command]


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    account: Account = UNCHANGED,
    text: str = "",
) -> None:
    """Run a command to its end, its output kept in a log; failing raises with the log's end."""
    with log.open("ab") as output:
        done = _starter.submit(
            subprocess.Popen,
            leashed(command, signal.SIGKILL, account),
            env=dict(environment),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).result()
    try:
        done.communicate(text.encode())
    finally:
        stop_group(done, signal.SIGKILL, 0)
    if done.returncode != 0:
        raise SandboxError(f"{' '.join(command[:2])} failed\n{last_lines(log)}")


def stop_group(process: "subprocess.Popen[bytes]", how: int, patience: float) -> None:
    """Ask a process to end, wait for it, and end whatever is left of its process group.

    The process is collected last: until then its number, which is the group's, stays its own.
    """
    if process.returncode is not None:
        return
    os.kill(process.pid, how)
    deadline = time.monotonic() + patience
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while time.monotonic() < deadline and os.waitid(os.P_PID, process.pid, flags) is None:
        time.sleep(POLL_SECONDS)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(slots=True)
class Service:
    """A running service and the logs it writes."""

    name: str
    process: "subprocess.Popen[bytes]"
    logs: tuple[Path, ...]
    stop_signal: int = signal.SIGTERM

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once the service is ready; raise as soon as it is clear that it won't be."""
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if self.process.poll() is not None:
                raise SandboxError(f"{self.name} ended at its start\n{last_lines(*self.logs)}")
            if time.monotonic() > deadline:
                raise SandboxError(f"{self.name} does not get ready\n{last_lines(*self.logs)}")
            time.sleep(POLL_SECONDS)

    def stop(self, *, kill: bool = False) -> None:
        """End the service and its children: in good order, or at once as a crash would."""
        if kill:
            # the whole group at one stroke, so that no child sees its parent go first
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            return
        stop_group(self.process, self.stop_signal, STOP_SECONDS)


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    logs: tuple[Path, ...],
    *,
    account: Account = UNCHANGED,
    stop_signal: int = signal.SIGTERM,
    death_signal: int = signal.SIGKILL,
) -> Service:
    """Start a service in a process group of its own; its output goes to the first log."""
    with logs[0].open("ab") as output:
        process = _starter.submit(
            subprocess.Popen,
            leashed(command, death_signal, account),
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).result()
    return Service(name, process, logs, stop_signal)
