"""Ties one service to the process that started it: when that one dies, the service dies.

It runs as a program of its own, between the sandbox and the service, and turns into the
service: `leash.py PARENT SIGNAL UID GID COMMAND...`. Doing this here rather than between
fork and exec keeps it safe when the tests have threads. It uses the standard library only.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
UNCHANGED = -1


def become(uid: int, gid: int) -> None:
    """Give root's rights up for an ordinary account's, where that was asked for."""
    if uid == UNCHANGED:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent: int, signal: int) -> None:
    """Have the kernel send this process the signal once its parent is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the sandbox died before its service had started")


def main(argv: list[str]) -> None:
    """Change the account, put the leash on, become the service."""
    parent, signal, uid, gid = (int(value) for value in argv[:4])
    become(uid, gid)
    die_with(parent, signal)
    os.execv(argv[4], argv[4:])


if __name__ == "__main__":
    main(sys.argv[1:])
