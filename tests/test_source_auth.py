"""The file of logins: which goes to which origin, and what is refused without being quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from glancing.errors import ConfigError
from glancing.source_auth import (
    Basic,
    Certificate,
    Header,
    WebOrigin,
    parse_logins,
    secrets_of,
)

FOLDER = Path("/etc/glancing")
FILE = b"""
mirror.example.org:
  basic: {username: reader, password: 'pass: word'}
api.example.org:8443: {bearer: TOKEN}
http://old.example.org: {header: {name: X-Api-Key, value: KEY}}
https://[2001:db8::1]:444/: {certificate: {file: client.pem}}
Two.Example.org.: {certificate: {file: client.pem, key: client.key}}
"""


def test_logins_by_origin() -> None:
    assert parse_logins(FILE, FOLDER) == {
        WebOrigin("https", "mirror.example.org", 443): Basic("reader", "pass: word"),
        WebOrigin("https", "api.example.org", 8443): Header("Authorization", "Bearer TOKEN"),
        WebOrigin("http", "old.example.org", 80): Header("X-Api-Key", "KEY"),
        WebOrigin("https", "2001:db8::1", 444): Certificate("/etc/glancing/client.pem"),
        WebOrigin("https", "two.example.org", 443): Certificate(
            "/etc/glancing/client.pem", "/etc/glancing/client.key"
        ),
    }


def test_secrets_are_known_and_never_shown() -> None:
    logins = parse_logins(FILE, FOLDER)
    assert set(secrets_of(logins)) >= {"pass: word", "TOKEN", "KEY"}
    assert all(secret not in repr(logins) for secret in ("pass: word", "TOKEN", "KEY"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- a list",
        b"host: SECRET",
        b"host: {digest: SECRET}",
        b"host: {bearer: SECRET, basic: {username: a, password: b}}",
        b"host: {basic: {username: SECRET}}",
        b"host: {basic: {username: a, password: b, realm: SECRET}}",
        b"host: {basic: {username: a, password: [SECRET]}}",
        b'host: {bearer: "SECRET\\r\\nX-Evil: 1"}',
        b"host: {header: {name: 'X Y', value: SECRET}}",
        b"host: {header: {name: Host, value: SECRET}}",
        b"ftp://host: {bearer: SECRET}",
        b"https://host/path: {bearer: SECRET}",
        b"https://user@host: {bearer: SECRET}",
        b"host:port: {bearer: SECRET}",
        b"host: {bearer: SECRET}\nHOST: {bearer: SECRET}",
        b"host: {bearer: SECRET\n",
        b"host: !!python/object/apply:os.system [SECRET]",
        b"\xff\xfeSECRET",
    ],
)
def test_what_is_no_file_of_logins(text: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_logins(text, FOLDER)
    assert "SECRET" not in str(caught.value)
