"""Old OpenPGP keys, by the program ``gpgv`` where it is installed.

Some publishers still sign with keys of the years in which GnuPG bound a key to its owner over SHA-1
(Ubuntu's images among them). Sequoia relies on no such key. The operator's own file says whose key
it is, so that binding proves nothing that is not known; what the key signs has to be as good as
ever. The key's times are judged by our caller, its revocation here too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_TIME_LIMIT_S = 60.0
_MOST_BYTES = 128 * 1024 * 1024
_BAD = {
    "BADSIG",
    "ERRSIG",
    "EXPSIG",
    "EXPKEYSIG",
    "REVKEYSIG",
    "KEYREVOKED",
    "NODATA",
    "UNEXPECTED",
}
_WEAK = {"1", "2", "3"}  # MD5, SHA-1, RIPE-MD (RFC 9580, section 9.5)
_FIELDS = 10  # a VALIDSIG line of GnuPG's DETAILS goes on with the digest and the primary key


def is_there() -> bool:
    """Whether the program is installed."""
    return shutil.which("gpgv") is not None


def covered(
    data: bytes, signature: bytes | None, certificate: bytes, fingerprint: str
) -> bytes | None:
    """The bytes that a key has signed, in ``data`` itself or beside it; None when it has not."""
    program = shutil.which("gpgv")
    if program is None:
        return None
    with ExitStack() as stack:
        ring, message = (stack.enter_context(_in_memory(each)) for each in (certificate, data))
        status, content = (stack.enter_context(_in_memory(b"")) for _ in range(2))
        words = [
            program,
            "--keyring",
            _path(ring),
            "--status-fd",
            str(status),
            "--output",
            _path(content),
        ]
        fds = [ring, message, status, content]
        if signature is not None:
            fds.append(stack.enter_context(_in_memory(signature)))
            words.append(_path(fds[-1]))
        if not _succeeds([*words, _path(message)], fds):
            return None
        if not _is_good(_read(status).decode(errors="replace"), fingerprint):
            return None
        return data if signature is not None else _read(content)


def _succeeds(words: list[str], fds: list[int]) -> bool:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "GNUPGHOME": "/nonexistent"}
    try:
        ended = subprocess.run(  # noqa: S603 - a program by its path, and no shell
            words,
            env=environment,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return ended.returncode == 0


def _is_good(status: str, fingerprint: str) -> bool:
    """One good signature by the key, over a digest that counts, and nothing that says otherwise."""
    lines = [line.split() for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    said = [words[1] for words in lines if len(words) > 1]
    valid = [words[2:] for words in lines if words[1:2] == ["VALIDSIG"]]
    if _BAD & {*said} or said.count("GOODSIG") != 1 or len(valid) != 1:
        return False
    (fields,) = valid
    enough = len(fields) >= _FIELDS
    return enough and fields[0].lower() == fingerprint and fields[7] not in _WEAK


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """A file without a name; nothing has to be writable, and nothing is left behind."""
    descriptor = os.memfd_create("glancing")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, min(os.fstat(descriptor).st_size, _MOST_BYTES), 0)
