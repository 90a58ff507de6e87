"""S/MIME signatures against certificate authorities, with certificates that are made here.

Fault 35: a message that is not plainly good is refused, and the refusal names the check.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from glancing.errors import ConfigError, ErrorKind, InterruptedRunError, SignatureError
from glancing.signatures import Authorities, Verifier
from tests.fakes import FakeClock
from tests.pki import Authority, Signer, openssl, signed

CONTENT = b'{"hv:imagelist": {"dc:title": "one"}}\n'
OTHER = b'{"hv:imagelist": {"dc:title": "two"}}\n'
HOUR, YEAR = timedelta(hours=1), timedelta(days=400)


class Parties(NamedTuple):
    """An authority with two signers, and another authority's signer of the same name."""

    authority: Authority
    endorser: Signer
    colleague: Signer
    stranger: Signer


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    authority = Authority(tmp_path_factory.mktemp("ours"))
    stranger = Authority(tmp_path_factory.mktemp("theirs")).signer()
    return Parties(
        authority,
        authority.signer(),
        authority.signer("/DC=org/DC=example/CN=host\\/two.example.org/emailAddress=a@example.org"),
        stranger,
    )


def verifier(authorities: Path, later: timedelta = HOUR) -> Verifier:
    clock = FakeClock(datetime.now(UTC) + later)
    return Verifier(clock, authorities=Authorities.at(authorities, threading.Event()))


# --- what is good ---------------------------------------------------------------------------------


def lf(message: bytes) -> bytes:
    return message.replace(b"\r\n", b"\n")


def older_type(message: bytes) -> bytes:
    """RFC 2311 called the signature's type ``x-pkcs7-signature``; later ones leave the ``x-``."""
    return message.replace(b"application/x-pkcs7-signature", b"application/pkcs7-signature")


def unchanged(message: bytes) -> bytes:
    return message


@pytest.mark.parametrize("form", [unchanged, lf, older_type])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
def test_good_messages(parties: Parties, form: Callable[[bytes], bytes], digest: str) -> None:
    message = form(signed(CONTENT, parties.endorser, digest=digest))
    found = verifier(parties.authority.directory).smime(message)
    assert found.content.split() == CONTENT.split()
    assert (found.signer, found.issuer) == (parties.endorser.dn, parties.authority.name)
    assert found.algorithm == digest


def test_a_file_of_authorities(parties: Parties) -> None:
    found = verifier(parties.authority.file).smime(signed(CONTENT, parties.colleague))
    assert found.signer == ("/DC=org/DC=example/CN=host/two.example.org/emailAddress=a@example.org")


# --- what is refused ------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A message that must not pass, and the check that has to stop it."""

    check: str
    message: Callable[[Parties], bytes]
    later: timedelta = HOUR


REFUSED = {
    "changed byte": Refused(
        "signature", lambda p: signed(CONTENT, p.endorser).replace(b'"one"', b'"two"')
    ),
    "content of another list": Refused(
        "signature", lambda p: signed(CONTENT, p.endorser).replace(CONTENT[:-1], OTHER[:-1])
    ),
    "a stranger of the same name": Refused("chain", lambda p: signed(CONTENT, p.stranger)),
    "expired certificate": Refused("validity", lambda p: signed(CONTENT, p.endorser), YEAR),
    "not yet valid": Refused("validity", lambda p: signed(CONTENT, p.endorser), -HOUR),
    "two signers": Refused("signers", lambda p: signed(CONTENT, p.endorser, p.colleague)),
    "a good and a strange signer": Refused(
        "chain", lambda p: signed(CONTENT, p.endorser, p.stranger)
    ),
    "weak digest": Refused("algorithm", lambda p: signed(CONTENT, p.endorser, digest="md5")),
    "no signature": Refused(
        "signature", lambda p: signed(CONTENT, p.endorser).partition(b"MII")[0]
    ),
    "certificates and no signer": Refused("signature", lambda p: without_signer(p.endorser)),
    "a part before": Refused(
        "signature",
        lambda p: with_part_before(signed(CONTENT, p.endorser), OTHER),
    ),
    "nothing but a header": Refused("signature", lambda _: b"Content-Type: multipart/signed\n\n"),
    "empty": Refused("signature", lambda _: b""),
}


def without_signer(signer: Signer) -> bytes:
    """A message whose signature holds a certificate, and no signature at all (RFC 5652, 5.1)."""
    bundle = openssl(*("crl2pkcs7", "-nocrl", "-certfile", signer.certificate, "-outform", "DER"))
    message = signed(CONTENT, signer)
    head, _, _ = message.partition(b"MII")
    end = message[message.rindex(b"\r\n------") :]
    return head + base64.encodebytes(bundle).replace(b"\n", b"\r\n") + end


def with_part_before(message: bytes, content: bytes) -> bytes:
    boundary = message.split(b'boundary="')[1].split(b'"')[0]
    first = b"--" + boundary + b"\r\n"
    return message.replace(first, first + content + b"\r\n" + first, 1)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused_messages(parties: Parties, case: Refused) -> None:
    with pytest.raises(SignatureError) as refusal:
        verifier(parties.authority.directory, case.later).smime(case.message(parties))
    assert refusal.value.check == case.check
    assert refusal.value.kind is ErrorKind.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("dn", "words"),
    [
        ("/DC=org/CN=Endorser+OU=Images", ("-multivalue-rdn",)),
        ("/DC=org/CN=A\\/CN=Endorser", ()),
        ("/DC=org/CN=A\nCN=Endorser", ()),
        ("/DC=org/CN=A \\+ B", ()),
    ],
)
def test_names_that_could_be_read_in_two_ways(
    parties: Parties, dn: str, words: tuple[str, ...]
) -> None:
    signer = parties.authority.signer(dn, *words)
    with pytest.raises(SignatureError) as refusal:
        verifier(parties.authority.directory).smime(signed(CONTENT, signer))
    assert refusal.value.check == "names"


def test_only_the_authorities_that_were_named_count(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(parties.authority.directory.parent / "other", "/DC=org/CN=Other CA")
    monkeypatch.setenv("SSL_CERT_DIR", str(parties.authority.directory))
    monkeypatch.setenv("SSL_CERT_FILE", str(parties.authority.file))
    for place in (other.directory, other.file):
        with pytest.raises(SignatureError) as refusal:
            verifier(place).smime(signed(CONTENT, parties.endorser))
        assert refusal.value.check == "chain"


# --- the process ----------------------------------------------------------------------------------


def test_a_verification_ends_with_its_run(parties: Parties, tmp_path: Path) -> None:
    stop = threading.Event()
    slow = tmp_path / "openssl"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o700)
    authorities = Authorities(parties.authority.directory, str(slow), stop)
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(InterruptedRunError):
        authorities.verified(CONTENT, datetime.now(UTC))


@pytest.mark.parametrize("what", ["missing", "empty directory", "no certificates"])
def test_places_without_authorities_are_errors_of_the_configuration(
    what: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if what == "empty directory":
        place.mkdir()
    if what == "no certificates":
        place.write_text("none")
    with pytest.raises(ConfigError, match="place"):
        Authorities.at(place, threading.Event())


def test_without_authorities_every_message_is_refused(parties: Parties) -> None:
    with pytest.raises(SignatureError) as refusal:
        Verifier(FakeClock()).smime(signed(CONTENT, parties.endorser))
    assert refusal.value.check == "authorities"
