"""OpenPGP signatures against a keyring, with keys that are made here.

Fault 35: a signature that is not plainly good is refused, and the refusal names the check.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from pysequoia import ArmorKind, Cert, SignatureMode, Tsk, armor, sign

from glancing.errors import ConfigError, ErrorKind, SignatureError
from glancing.signatures import Verifier, read_keyring
from tests.fakes import FakeClock

TEXT = b"0123  a.img\n- dashed\n4567  b.img"
DAY = timedelta(days=1)


class Keys(NamedTuple):
    """A publisher's key, a second one of the same ring, and a stranger's."""

    publisher: Tsk
    second: Tsk
    stranger: Tsk

    @property
    def ring(self) -> bytes:
        return public(self.publisher) + public(self.second)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys(*(Tsk.generate(f"{who} <{who}@example.org>") for who in Keys._fields))


def public(key: Tsk) -> bytes:
    return bytes(key.extract_certificate())


def clear_signed(key: Tsk, text: bytes = TEXT) -> bytes:
    return sign(key.signer(), text, mode=SignatureMode.CLEAR)


def beside(key: Tsk, text: bytes = TEXT, *, armour: bool = True) -> bytes:
    return sign(key.signer(), text, mode=SignatureMode.DETACHED, armor=armour)


def verifier(ring: bytes, later: timedelta = timedelta()) -> Verifier:
    clock = FakeClock(datetime.now(UTC) + later)
    return Verifier(clock, keyring=read_keyring(ring, "ring.gpg"))


# --- what is good ---------------------------------------------------------------------------------


def one_armour(keys: Keys) -> bytes:
    return armor(keys.ring, ArmorKind.PublicKey).encode()


def two_armours(keys: Keys) -> bytes:
    return (
        str(keys.publisher.extract_certificate()).encode()
        + armor(public(keys.second), ArmorKind.PublicKey).encode()
    )


@pytest.mark.parametrize("ring", [lambda keys: keys.ring, one_armour, two_armours])
def test_every_form_of_keyring(keys: Keys, ring: Callable[[Keys], bytes]) -> None:
    for key in (keys.publisher, keys.second):
        found = verifier(ring(keys)).clear_signed(clear_signed(key))
        assert found.content == TEXT
        assert found.algorithm == "sha512"


@pytest.mark.parametrize("armour", [True, False])
def test_detached_signatures(keys: Keys, armour: bool) -> None:
    found = verifier(keys.ring).detached(TEXT, beside(keys.second, armour=armour))
    assert found.content == TEXT


def test_one_good_signature_of_several_is_enough(keys: Keys) -> None:
    both = beside(keys.stranger, armour=False) + beside(keys.publisher, armour=False)
    assert verifier(keys.ring).detached(TEXT, both).content == TEXT


def test_line_ends_are_not_part_of_a_clear_signed_text(keys: Keys) -> None:
    message = clear_signed(keys.publisher).replace(b"\n", b"\r\n")
    assert verifier(keys.ring).clear_signed(message).content.split() == TEXT.split()


# --- what is refused ------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A message that must not pass, and the check that has to stop it."""

    check: str
    message: Callable[[Keys], bytes]
    later: timedelta = timedelta()


REFUSED = {
    "changed byte": Refused("signature", lambda k: clear_signed(k.publisher).replace(b"01", b"02")),
    "stranger": Refused("signer", lambda k: clear_signed(k.stranger)),
    "text before": Refused("framing", lambda k: b"99  a.img\n" + clear_signed(k.publisher)),
    "text after": Refused("framing", lambda k: clear_signed(k.publisher) + b"99  a.img\n"),
    "text in the head": Refused(
        "framing", lambda k: clear_signed(k.publisher).replace(b"\n\n", b"\n99  a.img\n\n", 1)
    ),
    "comment in the head": Refused(
        "framing", lambda k: clear_signed(k.publisher).replace(b"Hash:", b"Comment: x\nHash:", 1)
    ),
    "two messages": Refused("framing", lambda k: clear_signed(k.publisher) * 2),
    "no signature": Refused(
        "framing", lambda k: clear_signed(k.publisher).partition(b"-----BEGIN PGP SIGNATURE")[0]
    ),
    "an empty signature": Refused(
        "framing", lambda k: with_signature(clear_signed(k.publisher), b"")
    ),
    "a key for a signature": Refused(
        "framing", lambda k: with_signature(clear_signed(k.publisher), public(k.publisher))
    ),
    "another message's signature": Refused(
        "signature",
        lambda k: with_signature(
            clear_signed(k.publisher), beside(k.publisher, b"other", armour=False)
        ),
    ),
    "dated in the future": Refused("validity", lambda k: clear_signed(k.publisher), -DAY),
    "not signed": Refused("framing", lambda _: TEXT),
    "empty": Refused("framing", lambda _: b""),
}


def with_signature(message: bytes, packets: bytes) -> bytes:
    text = message.partition(b"-----BEGIN PGP SIGNATURE")[0]
    return text + armor(packets, ArmorKind.Signature).encode()


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused_messages(keys: Keys, case: Refused) -> None:
    with pytest.raises(SignatureError) as refusal:
        verifier(keys.ring, case.later).clear_signed(case.message(keys))
    assert refusal.value.check == case.check
    assert refusal.value.kind is ErrorKind.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("check", "signature"),
    [
        ("signature", lambda k: beside(k.publisher, b"another file")),
        ("signer", lambda k: beside(k.stranger)),
        ("framing", lambda _: b""),
        ("framing", lambda _: b"<html>"),
        ("framing", lambda k: public(k.publisher)),
    ],
)
def test_refused_signatures(keys: Keys, check: str, signature: Callable[[Keys], bytes]) -> None:
    with pytest.raises(SignatureError) as refusal:
        verifier(keys.ring).detached(TEXT, signature(keys))
    assert refusal.value.check == check


def test_an_expired_key_is_refused() -> None:
    key = Tsk.generate("short", validity_seconds=3600)
    message = clear_signed(key)
    assert verifier(public(key)).clear_signed(message).content == TEXT
    with pytest.raises(SignatureError, match="has expired") as refusal:
        verifier(public(key), DAY).clear_signed(message)
    assert refusal.value.check == "validity"


def test_a_revoked_key_is_refused_though_the_ring_has_an_older_copy_of_it() -> None:
    key = Tsk.generate("revoked")
    certificate = key.extract_certificate()
    revoked = Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(key.certifier())))
    for ring in (bytes(revoked), bytes(revoked) + public(key), public(key) + bytes(revoked)):
        with pytest.raises(SignatureError) as refusal:
            verifier(ring).clear_signed(clear_signed(key))
        assert refusal.value.hint == "the key has been revoked"


# A key and its SHA-1 signature of TEXT, as GnuPG makes it on demand; Sequoia makes none.
OLD_KEY = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawWDPBYJKwYBBAHaRw8BAQdALcYjYFHSNBi2tvv73HX+7gj8xVd+wmnMM96d
uZEyzOm0FU9sZCA8b2xkQGV4YW1wbGUub3JnPoiQBBMWCAA4FiEExsHAHTjewHUq
Tv/I1KLeNLj2dqUFAmsFgzwCGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQ
1KLeNLj2dqVlQAD9H5Mb+TdmclCTusqVZGXFX38abbCt5Nc06IrLd1+T7iYA/0OA
QQqJNDVLn9mHxgwCSAy4FFkFnKY05sObH5+q8ScI
=BaEm
-----END PGP PUBLIC KEY BLOCK-----
"""
SHA1_SIGNATURE = b"""-----BEGIN PGP SIGNATURE-----

iHUEABYCAB0WIQTGwcAdON7AdSpO/8jUot40uPZ2pQUCawWDPAAKCRDUot40uPZ2
pTQRAQCWRKOKqW86uxuWP9PBYAQxPSBglmhhnvQxEw0zusKUGQEA2IeviohZ9yJE
vBuojK4l3DrR8PxHbd6yUi6GMjR3cgY=
=gbjm
-----END PGP SIGNATURE-----
"""


def test_a_signature_over_sha1_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"signature .sha1.") as refusal:
        verifier(OLD_KEY).detached(TEXT, SHA1_SIGNATURE)
    assert refusal.value.hint == "signatures over MD5 and SHA-1 prove nothing any more"


# --- keyrings that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\n", b"no key", b"\x99\x01", b"-----BEGIN PGP PUBLIC KEY"])
def test_a_keyring_without_a_key_is_an_error_of_the_configuration(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"the keyring ring\.gpg"):
        read_keyring(data, "ring.gpg")


def test_without_a_keyring_every_signature_is_refused(keys: Keys) -> None:
    nothing = Verifier(FakeClock())
    assert not nothing.has_keyring
    with pytest.raises(SignatureError):
        nothing.clear_signed(clear_signed(keys.publisher))
    with pytest.raises(SignatureError):
        nothing.detached(TEXT, beside(keys.publisher))
