"""Documents that have to be signed before they count, and the events that tell of it.

Verifying is an adapter's work (``model.Signatures``); where a signature is to be looked for, and
what is done without one, is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from glancing.errors import DownloadError, ErrorKind, SignatureError
from glancing.imagelist import MAX_SUMS_BYTES, is_mime_message, is_stream, parse_list
from glancing.model import (
    MIB,
    NO_TRUST,
    Events,
    ListContext,
    LocalPath,
    Location,
    Parsed,
    Signature,
    Signatures,
    Sources,
    Trust,
    Url,
)

_CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BESIDE = (".gpg", ".sign", ".asc")
_ABSENT = (ErrorKind.NOT_FOUND, ErrorKind.HTTP_STATUS)  # some stores answer 403 for what is not
_MAX_SIGNATURE_BYTES = MIB


@dataclass(frozen=True, slots=True)
class SignedDocuments:
    """What is demanded of the documents of one run; ``signatures`` is None to verify nothing."""

    events: Events
    signatures: Signatures | None = None
    trust: Trust = NO_TRUST

    def read_list(
        self, data: bytes, context: ListContext, sources: Sources, now: datetime
    ) -> Parsed:
        """What a list says, once its signature is good.

        Raises DownloadError, ImageListError and SignatureError.
        """
        # The signature of a list says nothing of those that it includes.
        context = replace(context, signature=None, trust=self.trust, now=now)
        try:
            signature = self._signature(data, context, sources)
            content = data if signature is None else signature.content
            found = parse_list(content, replace(context, signature=signature))
        except SignatureError as error:
            self._tell_refused(context.location, error)
            if not (self.trust.allow_unsigned and is_mime_message(data)):
                raise
            return parse_list(data, context)
        if signature is not None:
            self._tell_verified(context.location, signature)
        return found

    def _signature(self, data: bytes, context: ListContext, sources: Sources) -> Signature | None:
        """The good signature of a list, None for one that has none and may be read without."""
        if is_mime_message(data):
            return self._verifier().smime(data)
        if data.lstrip().startswith(_CLEAR_SIGNED):
            return self._verifier().clear_signed(data)
        if self.has_keyring and is_stream(data, context):
            return _verified(self._verifier(), data, context.location, sources)
        return None

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
        try:
            found = check(self._verifier())
        except SignatureError as error:
            self._tell_refused(location, error)
            raise
        self._tell_verified(location, found)
        return found.content

    def _verifier(self) -> Signatures:
        if self.signatures is None:
            raise SignatureError(
                "there is nothing to verify signatures against",
                check="trust",
                hint="--ca-dir names certificate authorities, --keyring OpenPGP keys",
            )
        return self.signatures

    def _tell_verified(self, location: Location, found: Signature) -> None:
        self.events.info(
            "list.signature_verified",
            list=str(location),
            signer=found.signer,
            issuer=found.issuer,
            algorithm=found.algorithm,
        )

    def _tell_refused(self, location: Location, error: SignatureError) -> None:
        self.events.error(
            "list.signature_refused",
            list=str(location),
            check=error.check,
            signer=error.signer,
            reason=error.message,
        )


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
