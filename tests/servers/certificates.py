"""Throw-away certificates, made by the ``openssl`` command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A certificate authority of its own; ``file`` is what a client has to trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.file = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-subj", "/CN=Test CA", "-days", "2"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", self._key, "-out", self.file),
        )

    def server(self, names: str = "IP:127.0.0.1,DNS:localhost", *, days: int = 2) -> ssl.SSLContext:
        """A server's side of TLS with a certificate for these names; ``days=-1`` has expired."""
        stem = self._directory / f"server{len(list(self._directory.iterdir()))}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".pem"))
        extensions = stem.with_suffix(".cnf")
        # Python 3.13 checks what RFC 5280 demands, and older openssl commands leave it out.
        extensions.write_text("authorityKeyIdentifier = keyid\n")
        _openssl(
            *("req", *_NEW_KEY, "-subj", "/CN=Test server", "-addext", f"subjectAltName={names}"),
            *("-keyout", key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key),
            *("-CAcreateserial", "-copy_extensions", "copy", "-days", str(days)),
            *("-extfile", extensions),
            *("-out", certificate),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
