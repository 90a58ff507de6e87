"""Reads which login goes to which source: the file of ``--source-auth``.

A YAML mapping of origins to logins. An origin is ``https://host[:port]``; a bare ``host[:port]``
means https as well, and only an origin that says ``http://`` is ever sent a login unencrypted::

    mirror.example.org:
      basic: {username: reader, password: secret}
    api.example.org:8443:
      bearer: TOKEN
    https://files.example.org:
      header: {name: X-Api-Key, value: KEY}
    private.example.org:
      certificate: {file: client.pem, key: client.key}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from glancing.errors import ConfigError

MAX_LOGINS_BYTES = 1024 * 1024


class WebOrigin(NamedTuple):
    """Scheme, host and port (RFC 6454, section 4)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> WebOrigin:
        """The origin of a URL; ValueError for a port that is no number."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, (parts.hostname or "").lower().rstrip("."), port)


@dataclass(frozen=True, slots=True)
class Basic:
    """A user name and a password (RFC 7617)."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """A header field with a secret; a bearer token (RFC 6750) is ``Authorization``."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate: PEM files; ``key`` is None where the file has both."""

    file: str
    key: str | None = None


Login = Basic | Header | Certificate
Logins = Mapping[WebOrigin, Login]
NO_LOGINS: Logins = MappingProxyType({})

_KINDS = ("basic", "bearer", "header", "certificate")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
# A client that a header field told about its length or its host would send broken requests.
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "range", "if-range"})


def parse_logins(data: bytes, folder: Path) -> Logins:
    """The logins of a file; the files that it names are relative to ``folder``.

    Raises ConfigError, which never quotes a value.
    """
    try:
        document = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"not YAML: {_place(exc)}") from None
    if not isinstance(document, dict):
        raise ConfigError("not a mapping of hosts to logins")
    logins: dict[WebOrigin, Login] = {}
    for key, value in document.items():
        origin = _origin(str(key))
        if origin in logins:
            raise ConfigError(f"{key}: stands twice")
        logins[origin] = _login(str(key), value, folder)
    return MappingProxyType(logins)


def secrets_of(logins: Logins) -> Iterator[str]:
    """Everything in logins that must never be printed."""
    for login in logins.values():
        match login:
            case Basic(_, secret):
                yield secret
            case Header(_, secret):
                yield secret
                yield secret.removeprefix("Bearer ")
            case Certificate():
                pass


def certificates_of(logins: Logins) -> Iterator[str]:
    """The files that logins name."""
    for login in logins.values():
        if isinstance(login, Certificate):
            yield login.file
            if login.key:
                yield login.key


def _place(exc: Exception) -> str:
    """Where a document is broken; what stands there may be a password."""
    mark = getattr(exc, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it cannot be decoded"


def _origin(key: str) -> WebOrigin:
    try:
        origin = WebOrigin.of(key if "://" in key else f"https://{key}")
        parts = urlsplit(key if "://" in key else f"https://{key}")
    except ValueError:
        raise ConfigError(f"{key}: not a host") from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if origin.scheme not in ("http", "https") or not origin.host or rest:
        raise ConfigError(f"{origin.host or key}: a host, or scheme, host and port, is wanted")
    return origin


def _login(key: str, value: Any, folder: Path) -> Login:
    if not isinstance(value, dict) or len(value) != 1:
        raise ConfigError(f"{key}: one of {', '.join(_KINDS)} is wanted")
    ((kind, said),) = value.items()
    place = f"{key}: {kind}"
    match kind:
        case "basic":
            return _basic(place, said)
        case "bearer":
            return Header("Authorization", f"Bearer {_line(place, said)}")
        case "header":
            return _header(place, said)
        case "certificate":
            return _certificate(place, said, folder)
    raise ConfigError(f"{place} is none of {', '.join(_KINDS)}")


def _basic(place: str, said: Any) -> Basic:
    fields = _fields(place, said, {"username", "password"})
    return Basic(fields["username"], fields["password"])


def _header(place: str, said: Any) -> Header:
    fields = _fields(place, said, {"name", "value"})
    name = fields["name"]
    if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED:
        raise ConfigError(f"{place}: this name of a header field cannot be used")
    return Header(name, fields["value"])


def _certificate(place: str, said: Any, folder: Path) -> Certificate:
    fields = _fields(place, said, {"file"}, {"key"})
    key = str(folder / fields["key"]) if "key" in fields else None
    return Certificate(str(folder / fields["file"]), key)


def _fields(
    place: str, said: Any, needed: set[str], possible: set[str] | None = None
) -> dict[str, str]:
    keys = set(said) if isinstance(said, dict) else set()
    if not needed <= keys <= needed | (possible or set()):
        raise ConfigError(f"{place}: {' and '.join(sorted(needed))} are wanted")
    return {key: _line(f"{place}: {key}", value) for key, value in said.items()}


def _line(place: str, said: Any) -> str:
    """A text of one line: a line break would end the header field that it goes to."""
    text = said if isinstance(said, str) else str(said) if isinstance(said, int) else ""
    if not text or not text.isprintable():
        raise ConfigError(f"{place}: a text of one line is wanted")
    return text
