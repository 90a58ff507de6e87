"""S/MIME signatures, as HEPiX lists have them, against the certificate authorities of a site.

The program ``openssl`` verifies (``cms``, RFC 5652), in a process that gets the message and gives
back the content that was signed; our own reading of the envelope counts for nothing. All of it is
kept in memory files, so that neither a writable directory nor a cleanup is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from glancing.errors import ConfigError, InterruptedRunError, SignatureError
from glancing.model import MIB, Signature
from glancing.names import slashed

_TIME_LIMIT_S = 60.0
_LOOKING_S = 0.1
_SHOWN = 300
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_ALGORITHMS = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512"})
# Names line by line, with control characters and backslashes escaped
_NAME_OPTIONS = "esc_ctrl,utf8,sep_multiline,sname"


@dataclass(frozen=True, slots=True)
class Authorities:
    """Whose certificates are believed: a hashed directory, or a file of certificates.

    ``stop`` ends a verification that is under way.
    """

    path: Path
    program: str
    stop: threading.Event

    @classmethod
    def at(cls, path: Path, stop: threading.Event) -> Authorities:
        """Those of a path; ConfigError when it holds none, or openssl is not installed."""
        program = shutil.which("openssl")
        if program is None:
            raise ConfigError("signed lists need the program openssl, which is not installed")
        _check_authorities(path)
        return cls(path.absolute(), program, stop)

    def verified(self, message: bytes, now: datetime) -> Signature:
        """The content of a message with one signer, whose certificate is good at ``now``.

        Raises SignatureError, and InterruptedRunError.
        """
        content, certificate = self._content(message, now)
        subject, issuer = self._names(certificate)
        return Signature(
            content=content, signer=subject, algorithm=self._algorithm(message), issuer=issuer
        )

    def _content(self, message: bytes, now: datetime) -> tuple[bytes, bytes]:
        """What was signed, and the certificate of its one signer."""
        of_directory = self.path.is_dir()
        ended = self._run(
            "cms",
            "-verify",
            "-inform",
            "SMIME",
            "-CApath" if of_directory else "-CAfile",
            str(self.path),
            "-no-CAfile" if of_directory else "-no-CApath",
            "-no-CAstore",
            "-purpose",
            "any",
            "-attime",
            str(int(now.timestamp())),
            data=message,
            wants="-signer",
        )
        if ended.code != 0:
            raise _refusal(ended.errors)
        certificates = _CERTIFICATE.findall(ended.further)
        if len(certificates) != 1:
            what = f"the list has {len(certificates)} signers, where there must be one"
            raise SignatureError(what, check="signers")
        return ended.output, certificates[0]

    def _names(self, certificate: bytes) -> tuple[str, str]:
        """Subject and issuer in slash form; SignatureError for what could mean two names."""
        ended = self._run(
            "x509", "-noout", "-subject", "-issuer", "-nameopt", _NAME_OPTIONS, data=certificate
        )
        found = _subject_and_issuer(ended.output.decode(errors="replace"))
        if ended.code != 0 or found is None:
            what = "the names in the signer's certificate can be read in several ways"
            raise SignatureError(what, check="names")
        return found

    def _algorithm(self, message: bytes) -> str:
        """The digest that was signed; SignatureError for one that proves nothing any more."""
        ended = self._run("cms", "-cmsout", "-print", "-noout", "-inform", "SMIME", data=message)
        found = _DIGEST.search(ended.output[max(ended.output.rfind(_SIGNERS), 0) :])
        algorithm = found[1].decode().lower().replace("-", "") if found else "unknown"
        if algorithm not in _ALGORITHMS:
            what = f"signatures over {algorithm} prove nothing"
            raise SignatureError(what, check="algorithm")
        return algorithm

    def _run(self, *arguments: str, data: bytes, wants: str | None = None) -> _Ended:
        return _run([self.program, *arguments], data, self.stop, wants)


_SIGNERS = b"\n    signerInfos:"
_DIGEST = re.compile(rb"digestAlgorithm:\s+algorithm: ([A-Za-z0-9-]+) ")


def _check_authorities(path: Path) -> None:
    try:
        if path.is_dir():
            good = any(_HASHED.fullmatch(file.name) for file in path.iterdir())
        else:
            good = _CERTIFICATE.search(path.read_bytes()) is not None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not good:
        raise ConfigError(
            f"{path} holds no certificate of an authority",
            hint="a directory made by `openssl rehash`, such as /etc/grid-security/certificates,"
            " or a file of PEM certificates",
        )


def _refusal(errors: str) -> SignatureError:
    """The reason that openssl gives, and the check it stands for."""
    reason = errors.rpartition("Verify error:")[2].strip().splitlines()
    if "Verify error:" not in errors:
        known = re.findall(r"error:[0-9A-F]+:[^:]*:[^:]*:([^:]+):", errors)
        what = f"the signature is not good: {known[-1] if known else 'openssl gives no reason'}"
        return SignatureError(what[:_SHOWN], check="signature")
    told = reason[0][:_SHOWN] if reason else "unknown"
    check = "validity" if "expired" in told or "not yet valid" in told else "chain"
    return SignatureError(f"the signer's certificate is not good: {told}", check=check)


def _subject_and_issuer(text: str) -> tuple[str, str] | None:
    """Both names of ``openssl x509``; None where one could be read in several ways."""
    names: dict[str, list[str]] = {}
    parts: list[str] = []
    for line in text.split("\n")[:-1]:
        if not line.startswith("    "):
            parts = names.setdefault(line, [])
            continue
        parts.append(line[4:])
        # An escape, or an RDN of several attributes: each has more than one reading.
        if "\\" in line or " + " in line or "\N{REPLACEMENT CHARACTER}" in line:
            return None
    if list(names) != ["subject=", "issuer="]:
        return None
    subject, issuer = slashed(names["subject="]), slashed(names["issuer="])
    return (subject, issuer) if subject and issuer else None


# --- the process ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ended:
    """What a process left; ``further`` is the file that an option of it names."""

    code: int
    output: bytes
    errors: str
    further: bytes


_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C",
    # No authority but those that the operator named
    "SSL_CERT_FILE": "/nonexistent",
    "SSL_CERT_DIR": "/nonexistent",
}


def _run(
    command: Sequence[str], data: bytes, stop: threading.Event, wants: str | None = None
) -> _Ended:
    """Run a process over bytes; its output is bounded by what can be in them."""
    with contextlib.ExitStack() as stack:
        given, output, errors, further = (
            stack.enter_context(_memory_file(name)) for name in ("in", "out", "err", "further")
        )
        given.write(data)
        given.seek(0)
        more = [wants, f"/proc/self/fd/{further.fileno()}"] if wants else []
        with subprocess.Popen(  # noqa: S603 - a list of arguments, none of them a stranger's
            [*command, *more],
            stdin=given,
            stdout=output,
            stderr=errors,
            pass_fds=(further.fileno(),),
            env=_ENVIRONMENT,
            cwd="/",
        ) as process:
            # It may have ended already.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                most = 8 * len(data) + 4 * MIB
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
            code = _awaited(process, stop)
        told = _content(errors)[: 64 * 1024].decode(errors="replace")
        return _Ended(code, _content(output), told, _content(further))


def _memory_file(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(f"glancing-{name}"), "w+b", buffering=0)


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _awaited(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """The exit code; the process does not outlive the run, whatever ends it."""
    deadline_s = time.monotonic() + _TIME_LIMIT_S
    try:
        while True:
            try:
                return process.wait(_LOOKING_S)
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    raise InterruptedRunError("the run was told to stop") from None
                if time.monotonic() > deadline_s:
                    what = f"openssl did not end within {_TIME_LIMIT_S:.0f} seconds"
                    raise SignatureError(what, check="time-limit") from None
    finally:
        process.kill()
