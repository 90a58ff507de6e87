"""Keys that GnuPG bound to their owners over SHA-1, as some publishers still have them.

The files below ``old_keys`` were made by GnuPG 2.2: a key (``--cert-digest-algo SHA1``) with
signatures over SHA-512 and one over SHA-1 (of 2024), and another key that was good for 2020.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from glancing.errors import SignatureError
from glancing.signatures._openpgp import Keyring

FILES = Path(__file__).parent / "old_keys"
SUMS = b"abc  disk.img\n- dashed\n"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def file(name: str) -> bytes:
    return (FILES / f"{name}.asc").read_bytes()


@pytest.fixture
def ring() -> Keyring:
    return Keyring.parse(file("key") + file("expired-key"), "ring")


def test_what_they_sign_is_as_good_as_ever(ring: Keyring) -> None:
    found = ring.detached(SUMS, file("good"), NOW)
    assert (found.content, found.algorithm) == (SUMS, "sha512")
    assert ring.clear_signed(file("clear"), NOW).content == SUMS


@pytest.mark.parametrize(
    ("data", "signature"),
    [
        pytest.param(SUMS + b"x", "good", id="a changed byte"),
        pytest.param(SUMS, "weak", id="a signature over SHA-1"),
        pytest.param(SUMS, "expired", id="a key that has expired since"),
    ],
)
def test_what_is_refused(ring: Keyring, data: bytes, signature: str) -> None:
    """Fault 35."""
    with pytest.raises(SignatureError):
        ring.detached(data, file(signature), NOW)


def test_a_changed_text_and_one_around_are_refused(ring: Keyring) -> None:
    """Fault 35."""
    for changed in (file("clear").replace(b"abc", b"abd"), b"x\n" + file("clear")):
        with pytest.raises(SignatureError):
            ring.clear_signed(changed, NOW)


def test_another_key_of_the_ring_does_not_stand_in() -> None:
    """Fault 35: the signer is not in it."""
    with pytest.raises(SignatureError, match="not in the keyring"):
        Keyring.parse(file("expired-key"), "ring").detached(SUMS, file("good"), NOW)
