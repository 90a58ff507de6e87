"""The verifier of a run, with what the operator gave it to verify against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glancing.errors import SignatureError
from glancing.model import MIB, Clock, Signature
from glancing.signatures._smime import Authorities

if TYPE_CHECKING:
    from glancing.signatures._openpgp import Keyring

MAX_KEYRING_BYTES = 16 * MIB
_NO_KEYRING = "give the publisher's keys with --keyring"
_NO_AUTHORITIES = "name them with --ca-dir"


def read_keyring(data: bytes, name: str) -> Keyring:
    """The keys of a file; ConfigError when it cannot be read or holds none."""
    # Imported here: Sequoia is ten megabytes, and not every run needs it.
    from glancing.signatures._openpgp import Keyring  # noqa: PLC0415

    return Keyring.parse(data, name)


class Verifier:
    """``model.Signatures``; without a keyring or authorities, what they would verify is refused."""

    def __init__(
        self,
        clock: Clock,
        *,
        keyring: Keyring | None = None,
        authorities: Authorities | None = None,
    ) -> None:
        self._clock = clock
        self._keyring = keyring
        self._authorities = authorities

    @property
    def has_keyring(self) -> bool:
        """Whether OpenPGP signatures can be verified, and are therefore demanded."""
        return self._keyring is not None

    def clear_signed(self, message: bytes) -> Signature:
        """The text of a clear-signed message; raises SignatureError."""
        return self._needed_keyring().clear_signed(message, self._clock.now())

    def detached(self, data: bytes, signature: bytes) -> Signature:
        """The signature of a document that stands beside it; raises SignatureError."""
        return self._needed_keyring().detached(data, signature, self._clock.now())

    def smime(self, message: bytes) -> Signature:
        """The content of a message with one signer; raises SignatureError."""
        if self._authorities is None:
            what = "there are no certificate authorities to verify against"
            raise SignatureError(what, check="authorities", hint=_NO_AUTHORITIES)
        return self._authorities.verified(message, self._clock.now())

    def _needed_keyring(self) -> Keyring:
        if self._keyring is None:
            raise SignatureError("there is no keyring", check="keyring", hint=_NO_KEYRING)
        return self._keyring
