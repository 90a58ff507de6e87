"""Certificate authorities and the signers of image lists, made by the ``openssl`` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "rsa:2048", "-nodes", "-utf8")


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody with a certificate; names are in slash form."""

    dn: str
    ca: str
    certificate: Path
    key: Path


class Authority:
    """A certificate authority; ``directory`` is hashed as grid sites have theirs."""

    def __init__(self, folder: Path, name: str = "/DC=org/DC=example/CN=Example CA") -> None:
        self.name = name
        self._folder = folder
        self.directory = folder / "certificates"
        self.directory.mkdir(parents=True)
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        openssl(
            *("req", "-x509", *_KEY, "-subj", name, "-days", "3650"),
            *("-keyout", self._key, "-out", self.file),
        )
        hashed = openssl("x509", "-in", self.file, "-noout", "-subject_hash").decode().strip()
        (self.directory / f"{hashed}.0").write_bytes(self.file.read_bytes())

    def signer(self, dn: str = "/DC=org/DC=example/CN=Endorser", *subject: str) -> Signer:
        """Somebody whom this authority certifies for a year; ``subject`` adds words for openssl."""
        stem = self._folder / f"signer{len(list(self._folder.iterdir()))}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".pem"))
        openssl("req", *_KEY, "-subj", dn, *subject, "-keyout", key, "-out", request)
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key),
            *("-CAcreateserial", "-days", "365", "-out", certificate),
        )
        return Signer(dn, self.name, certificate, key)


def signed(content: bytes, *signers: Signer, digest: str = "sha256", headers: bytes = b"") -> bytes:
    """An S/MIME message, as publishers of image lists make them."""
    words: list[str | Path] = []
    for signer in signers:
        words += ["-signer", signer.certificate, "-inkey", signer.key]
    made = openssl(
        *("cms", "-sign", "-outform", "SMIME", "-md", digest, *words), data=headers + content
    )
    return made.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def openssl(*words: str | Path, data: bytes = b"") -> bytes:
    """What openssl writes; the test fails where it refuses."""
    return subprocess.run(
        ["openssl", *map(str, words)], input=data, check=True, capture_output=True
    ).stdout
