"""OpenPGP signatures: clear-signed texts and detached signatures, against the keys of a file.

Sequoia (``pysequoia``) does the cryptography under its standard policy: no MD5 or SHA-1, neither in
signatures nor in those that bind a key to its owner; keys that may sign, valid when they signed,
not revoked. It judges by the machine's clock; what has expired is judged again here by the run's.
Keys that are bound to their owners over SHA-1 are old, and ``gpgv`` is asked about them.
Sequoia passes over text around a clear-signed message, which is refused here before it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import pysequoia
from pysequoia import packet

from glancing.errors import ConfigError, SignatureError
from glancing.model import MIB, Signature
from glancing.signatures import _gpgv

MAX_SIGNATURE_BYTES = MIB
CLOCK_SKEW = timedelta(minutes=5)
_MAX_SIGNATURES = 16  # the images of Ubuntu once had two

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that may have signed: the certificate it is part of, and until when it is good."""

    fingerprint: str
    certificate: pysequoia.Cert
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class _Made:
    """A signature, and what it says of itself: by which key, over which digest, from when to when.

    Sequoia reads these when they are asked for, and may fail then.
    """

    read: pysequoia.Sig
    issuer: str
    algorithm: str
    created: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, one: packet.Packet) -> _Made:
        found = pysequoia.Sig.from_bytes(bytes(one))
        return cls(
            read=found,
            issuer=(found.issuer_fingerprint or found.issuer_key_id or "").lower(),
            algorithm=str(found.hash_algorithm).rpartition(".")[2].lower(),
            created=found.created,
            until=found.expiration,
        )


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys whose signatures are good, by fingerprint and by key ID."""

    keys: dict[str, _Key]

    @classmethod
    def parse(cls, data: bytes, name: str) -> Keyring:
        """The keys of a file, binary or armoured, one or several.

        ConfigError when it cannot be read or holds no key at all.
        """
        try:
            keys = _caught(lambda: _keys_in(data))
        except _SequoiaError as error:
            raise ConfigError(f"the keyring {name} cannot be read: {error}") from error
        if not keys:
            raise ConfigError(f"the keyring {name} holds no key")
        return cls(keys)

    def clear_signed(self, message: bytes, now: datetime) -> Signature:
        """The text under the signature of a clear-signed message (RFC 9580, section 7).

        SignatureError for any text outside of it, and when no signature is good.
        """
        text, armour = _parted(message)
        return self._first_good(
            _signatures(armour),
            lambda one: (text + pysequoia.armor(bytes(one.read), _ARMOUR).encode(), None),
            now,
        )

    def detached(self, data: bytes, signature: bytes, now: datetime) -> Signature:
        """A document with the signature that stands beside it, binary or armoured.

        SignatureError when no signature is good.
        """
        return self._first_good(_signatures(signature), lambda one: (data, one.read), now)

    def _first_good(
        self,
        signatures: Iterable[_Made],
        signed: Callable[[_Made], tuple[bytes, pysequoia.Sig | None]],
        now: datetime,
    ) -> Signature:
        """One good signature is enough: publishers sign with an old and a new key."""
        refusal: SignatureError | None = None
        for one in signatures:
            try:
                key = self._key_of(one)
                _check_times(one, key, now)
                return _good(one, key, *signed(one))
            except SignatureError as error:
                refusal = refusal or error
        raise refusal or SignatureError("there is no signature", check="signature")

    def _key_of(self, signature: _Made) -> _Key:
        issuer = signature.issuer
        key = self.keys.get(issuer)
        if key is None:
            what = f"the key {issuer or 'without a name'} that signed is not in the keyring"
            raise SignatureError(what, check="signer", signer=issuer or None)
        return key


_ARMOUR = pysequoia.ArmorKind.Signature


def _good(signature: _Made, key: _Key, data: bytes, beside: pysequoia.Sig | None) -> Signature:
    """What a signature covers; SignatureError when it is not good."""
    try:
        content = _caught(lambda: _covered(key, data, beside))
    except _SequoiaError:
        content = None
    if content is None and _is_bound_by_sha1(key):
        other = None if beside is None else bytes(beside)
        content = _gpgv.covered(data, other, bytes(key.certificate), key.fingerprint)
    if content is None:
        raise SignatureError(
            f"the signature ({signature.algorithm}) by the key {key.fingerprint} is not good",
            check="signature",
            signer=key.fingerprint,
            hint=_why(signature, key),
        )
    return Signature(content=content, signer=key.fingerprint, algorithm=signature.algorithm)


def _covered(key: _Key, data: bytes, beside: pysequoia.Sig | None) -> bytes | None:
    """The bytes that a key has signed; None when it was another one."""
    found = pysequoia.verify(data, lambda _: [key.certificate], None, beside)
    good = any(one.signing_key == key.fingerprint for one in found.valid_sigs)
    return found.bytes if good else None


def _is_bound_by_sha1(key: _Key) -> bool:
    """Whether Sequoia relies on a key for no other reason than what binds it to its owner."""
    try:
        _caught(lambda: key.certificate.expiration)
    except _SequoiaError as error:
        return "SHA1 is not considered secure" in str(error)
    return False


def _check_times(signature: _Made, key: _Key, now: datetime) -> None:
    """By the run's clock: made in the past, by a key that is still good, and not expired."""
    made, until = signature.created, signature.until
    what = None
    if made is None or made > now + CLOCK_SKEW:
        what = f"the signature is dated {made}, which is in the future"
    elif until is not None and until <= now:
        what = f"the signature has expired on {until}"
    elif key.expires is not None and key.expires <= now:
        what = f"the key {key.fingerprint} has expired on {key.expires}"
    if what is not None:
        raise SignatureError(what, check="validity", signer=key.fingerprint)


def _why(signature: _Made, key: _Key) -> str:
    if signature.algorithm in ("md5", "sha1"):
        return "signatures over MD5 and SHA-1 prove nothing any more"
    try:
        if _caught(lambda: key.certificate.is_revoked):
            return "the key has been revoked"
        _caught(lambda: key.certificate.expiration)
    except _SequoiaError as error:
        told = f"the key cannot be relied on: {error}"
        old = _is_bound_by_sha1(key) and not _gpgv.is_there()
        return f"{told}; where the program gpgv is installed, it can" if old else told
    return "the text was changed, or another file was signed"


# --- the parts of a message -----------------------------------------------------------------------

_LINES = re.compile(rb"^-----(?:BEGIN|END) [^\r\n]*", re.MULTILINE)
_FRAME = [
    b"-----BEGIN PGP SIGNED MESSAGE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----END PGP SIGNATURE-----",
]
# Only the header fields of RFC 9580, section 7; anything else would be text that looks signed.
_HEAD = re.compile(
    rb"-----BEGIN PGP SIGNED MESSAGE-----[ \t]*\r?\n"
    rb"(?:(?:Hash|SaltHash): [A-Za-z0-9+/=, -]*\r?\n)*[ \t]*\r?\n"
)


def _parted(message: bytes) -> tuple[bytes, bytes]:
    """The text with its head, and the armoured signature; SignatureError for anything besides."""
    whole = message.strip(b" \t\r\n")
    lines = list(_LINES.finditer(whole))
    framed = [line[0].rstrip() for line in lines] == _FRAME
    if not (framed and _HEAD.match(whole) and whole.endswith(_FRAME[2])):
        raise SignatureError(
            "the document has text before, after or beside its signed part", check="framing"
        )
    start = lines[1].start()
    return whole[:start], whole[start:]


def _signatures(data: bytes) -> list[_Made]:
    """The signatures of a file that holds nothing else."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise SignatureError("the signature is too large", check="framing")
    try:
        return _caught(lambda: _made(data))
    except _SequoiaError as error:
        what = f"the signature cannot be read: {error}"
        raise SignatureError(what, check="framing") from error


def _made(data: bytes) -> list[_Made]:
    packets = list(packet.PacketPile.from_bytes(data))
    if not packets or any(one.tag != packet.Tag.Signature for one in packets):
        raise _SequoiaError("it holds other things than signatures")
    return [_Made.of(one) for one in packets[:_MAX_SIGNATURES]]


# --- the parts of a keyring -----------------------------------------------------------------------


def _keys_in(data: bytes) -> dict[str, _Key]:
    """All keys of a file, under their fingerprints and their key IDs."""
    found = pysequoia.Cert.split_bytes(data)
    return {mark: key for cert in _merged(found) for mark, key in _keys_of(cert)}


def _merged(certificates: Iterable[pysequoia.Cert]) -> Iterable[pysequoia.Cert]:
    """Each certificate once, so that a revocation in one copy counts for all."""
    merged: dict[str, pysequoia.Cert] = {}
    for one in certificates:
        known = merged.get(one.fingerprint)
        merged[one.fingerprint] = known.merge(one) if known else one
    return merged.values()


def _keys_of(certificate: pysequoia.Cert) -> Iterator[tuple[str, _Key]]:
    """The primary key and the subkeys, each under its fingerprint and its key ID."""
    try:
        expires = _caught(lambda: certificate.expiration)
    except (
        _SequoiaError
    ):  # not relied on by Sequoia, which will say so when it has signed something
        expires = None
    packets = list(packet.PacketPile.from_bytes(bytes(certificate)))
    for number, one in enumerate(packets):
        if one.fingerprint is None or one.key_id is None:
            continue
        until = _earlier(expires, _subkey_expires(one, packets[number + 1 :]))
        key = _Key(one.fingerprint.lower(), certificate, until)
        yield one.fingerprint.lower(), key
        yield one.key_id.lower(), key


def _subkey_expires(key: packet.Packet, after: Iterable[packet.Packet]) -> datetime | None:
    """Until when the newest binding of a subkey lets it sign; None for ever, or no subkey."""
    newest: packet.Packet | None = None
    for one in after:
        if one.tag != packet.Tag.Signature:
            break
        if one.signature_type == packet.SignatureType.SubkeyBinding and (
            newest is None or _created(one) > _created(newest)
        ):
            newest = one
    if newest is None or newest.key_validity_period is None or key.key_created is None:
        return None
    return key.key_created + newest.key_validity_period


def _created(signature: packet.Packet) -> float:
    return signature.signature_created.timestamp() if signature.signature_created else 0.0


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)


# --- what Sequoia raises --------------------------------------------------------------------------


class _SequoiaError(Exception):
    """Sequoia did not take it; the message is its own, without the backtrace."""


def _caught(action: Callable[[], T]) -> T:
    """Run Sequoia on a stranger's bytes; what it raises, a panic too, is a _SequoiaError."""
    try:
        return action()
    except (RuntimeError, ValueError, OSError) as error:
        raise _SequoiaError(_first_line(error)) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # pyo3 makes a panic no Exception
            raise _SequoiaError("it upsets the parser") from error
        raise


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).partition("Stack backtrace")[0].splitlines()]
    return " ".join(filter(None, lines))[:300] or type(error).__name__
