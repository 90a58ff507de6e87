"""Documents that have to be signed before they count, and the events that tell of it.

Verifying is an adapter's work (``model.Signatures``); where a signature is to be looked for, and
what is done without one, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glancing.errors import DownloadError, ErrorKind, SignatureError
from glancing.imagelist import MAX_SUMS_BYTES
from glancing.model import MIB, Events, LocalPath, Location, Signature, Signatures, Sources, Url

_CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BESIDE = (".gpg", ".sign", ".asc")
_ABSENT = (ErrorKind.NOT_FOUND, ErrorKind.HTTP_STATUS)  # some stores answer 403 for what is not
_MAX_SIGNATURE_BYTES = MIB


@dataclass(frozen=True, slots=True)
class SignedDocuments:
    """What is demanded of the documents of one run; ``signatures`` is None to verify nothing."""

    events: Events
    signatures: Signatures | None = None

    @property
    def has_keyring(self) -> bool:
        """Whether checksum files have to be signed."""
        return self.signatures is not None and self.signatures.has_keyring

    def read_sums(self, location: Location, sources: Sources) -> bytes:
        """A checksum file: with a keyring, only what a key of it has signed.

        Raises DownloadError, and SignatureError when it is not signed as it has to be.
        """
        data = sources.read(location, MAX_SUMS_BYTES)
        return self.opened(data, location, sources) if self.has_keyring else data

    def opened(self, data: bytes, location: Location, sources: Sources) -> bytes:
        """What is signed of a document, by OpenPGP: in itself, or beside it.

        Raises DownloadError and SignatureError.
        """
        return self._told(location, lambda verify: _verified(verify, data, location, sources))

    def _told(self, location: Location, check: Callable[[Signatures], Signature]) -> bytes:
        """Verify, and tell the outcome in one event."""
        where = str(location)
        try:
            if self.signatures is None:
                raise SignatureError("signatures cannot be verified", check="keyring")
            found = check(self.signatures)
        except SignatureError as error:
            self.events.error(
                "list.signature_refused",
                list=where,
                check=error.check,
                signer=error.signer,
                reason=error.message,
            )
            raise
        self.events.info(
            "list.signature_verified", list=where, signer=found.signer, algorithm=found.algorithm
        )
        return found.content


def is_clear_signed(data: bytes) -> bool:
    """Whether a document says that it is a clear-signed OpenPGP message."""
    return _CLEAR_SIGNED in data


def _verified(verify: Signatures, data: bytes, location: Location, sources: Sources) -> Signature:
    if is_clear_signed(data):
        return verify.clear_signed(data)
    return verify.detached(data, _signature_of(location, sources))


def _signature_of(location: Location, sources: Sources) -> bytes:
    """The signature beside a document: the first that there is of ``.gpg``, ``.sign``, ``.asc``."""
    for suffix in _BESIDE:
        try:
            return sources.read(_beside(location, suffix), _MAX_SIGNATURE_BYTES)
        except DownloadError as error:
            if error.kind not in _ABSENT or error.transient:
                raise
    raise SignatureError(
        f"{location} is not signed",
        check="unsigned",
        hint=f"looked inside, and beside it for {', '.join(_BESIDE)}",
    )


def _beside(location: Location, suffix: str) -> Location:
    """The same address with a suffix to its path; a query stays, as it may be a login."""
    if isinstance(location, LocalPath):
        return LocalPath(Path(f"{location.path}{suffix}"))
    parts = location.parts
    return Url(parts._replace(path=parts.path + suffix, fragment="").geturl())
