"""Tokens for OCI registries, which hand them out to anybody or for a login.

A registry answers 401 and says where its tokens come from (the distribution specification's token
authentication: ``WWW-Authenticate: Bearer realm=…,service=…,scope=…``). A token is sent to the
registry that asked for it and to no other, so not to where a registry redirects to.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import urlencode

import requests
from requests.utils import parse_dict_header

from glancing.errors import DownloadError, ErrorKind
from glancing.model import Url
from glancing.source_auth import WebOrigin

ACCEPT_MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
MAX_TOKEN_BYTES = 64 * 1024
_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<what>manifests|blobs|tags)/.+")
_BEARER = re.compile(r"(?i)bearer\s+(.+)")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where a registry has its tokens from, as it says itself."""

    repository: str
    realm: Url

    @classmethod
    def of(cls, response: requests.Response, url: Url) -> Challenge | None:
        """What a 401 asks for; None when it is no registry's, or asks for something else."""
        path = _PATH.fullmatch(url.parts.path)
        bearer = _BEARER.fullmatch(response.headers.get("WWW-Authenticate", ""))
        if path is None or bearer is None:
            return None
        said: dict[str, str | None] = parse_dict_header(bearer[1])  # type: ignore[no-untyped-call]
        realm = str(said.get("realm") or "")
        if not realm.lower().startswith("https://"):
            return None
        words = {"service": said.get("service"), "scope": said.get("scope") or _scope(path)}
        query = urlencode({key: word for key, word in words.items() if word})
        return cls(path["repository"], Url(f"{realm}{'&' if '?' in realm else '?'}{query}"))


def _scope(path: re.Match[str]) -> str:
    return f"repository:{path['repository']}:pull"


def is_manifest(url: Url) -> bool:
    """Whether an address is that of a registry's manifest, which has to be asked for by type."""
    path = _PATH.fullmatch(url.parts.path)
    return path is not None and path["what"] == "manifests"


@dataclass(slots=True)
class Tokens:
    """The tokens of one run, by registry and repository; safe to use from several threads."""

    _known: dict[tuple[WebOrigin, str], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, url: Url, repository: str, token: str) -> None:
        """Use a token from now on."""
        with self._lock:
            self._known[WebOrigin.of(url.full), repository] = token

    def of(self, url: str) -> str | None:
        """The token for an address."""
        path = _PATH.fullmatch(Url(url).parts.path)
        with self._lock:
            return self._known.get((WebOrigin.of(url), path["repository"])) if path else None


def token_in(document: bytes, realm: Url) -> str:
    """The token in the answer of a token service; raises DownloadError when there is none."""
    try:
        answer = json.loads(document)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise DownloadError(f"{realm}: gave no token", kind=ErrorKind.HTTP_STATUS)
    return token
