"""`python -m tests.sandbox`: a cloud to try things on, from the command line.

Without arguments it prints the variables a shell needs to log in as the ordinary user and
stays up until it is interrupted. With `-- COMMAND ...` it runs the command with these
variables and ends with the command's exit code.
"""

import os
import shlex
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from tests.sandbox import Sandbox, SandboxError

USAGE = "usage: python -m tests.sandbox [-- COMMAND [ARGUMENT ...]]\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    """End in good order, taking the sandbox down; a second signal changes nothing."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def surroundings() -> dict[str, str]:
    """This process's environment without any other cloud's variables."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "GLANCING_"))}


def run(sandbox: Sandbox, command: list[str]) -> int:
    """Run a command as the ordinary user would."""
    with subprocess.Popen(command, env=surroundings() | sandbox.member.environ()) as process:
        try:
            return process.wait()
        finally:
            process.terminate()


def stay(sandbox: Sandbox) -> NoReturn:
    """Tell how to log in and wait for a signal."""
    for name, value in sandbox.member.environ().items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    sys.stdout.flush()
    sys.stderr.write("sandbox: up; interrupt it to take it down\n")
    while True:
        signal.pause()


def main(argv: list[str]) -> int:
    """Bring the sandbox up, do what was asked, take it down."""
    command = argv[1:] if argv[:1] == ["--"] else []
    if argv and not command:
        sys.stderr.write(USAGE)
        return 2
    for each in SIGNALS:
        signal.signal(each, interrupted)
    try:
        with Sandbox() as sandbox:
            return run(sandbox, command) if command else stay(sandbox)
    except SandboxError as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
