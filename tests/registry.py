"""An OCI registry that hands out tokens, as the distribution specification has it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

from tests.servers import Action, BadServer, Request, head

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DISK = "application/x-qemu-disk"
Document = Mapping[str, object]


def layer(data: bytes, media_type: str = DISK, **annotations: str) -> Document:
    """The description of a blob; two underscores in an annotation's name stand for a dot."""
    notes = {name.replace("__", "."): value for name, value in annotations.items()}
    digest = f"sha256:{sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data), "annotations": notes}


def manifest(*layers: Document) -> Document:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "layers": list(layers)}


class Registry(BadServer):
    """Serves manifests by tag and digest, blobs by digest, and a few tags on each page.

    ``login`` is what the token service wants to see, None to give tokens to anybody; ``redirect``
    is another server's address that blobs are sent to.
    """

    def __init__(self, *, tls: ssl.SSLContext, repository: str = "vm/tiny") -> None:
        super().__init__(self._answer, tls=tls)
        self.repository = repository
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.login: str | None = None
        self.redirect: str | None = None
        self.page = 2

    def __enter__(self) -> Registry:
        super().__enter__()
        return self

    def push(self, tag: str, data: bytes, document: Document | None = None) -> str:
        """Store an image under a tag; returns its reference by digest."""
        text = json.dumps(document or manifest(layer(data))).encode()
        digest = f"sha256:{sha256(text).hexdigest()}"
        self.manifests.update({tag: text, digest: text})
        self.blobs[f"sha256:{sha256(data).hexdigest()}"] = data
        return self.reference(f"@{digest}")

    def reference(self, end: str) -> str:
        return f"oci://{urlsplit(self.url('/')).netloc}/{self.repository}{end}"

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def _answer(self, request: Request) -> Iterable[Action]:
        path, _, query = request.path.partition("?")
        if path == "/token":
            return self._token(request, query)
        prefix = f"/v2/{self.repository}/"
        if request.headers.get("authorization") != "Bearer a-token":
            return [head(401, content_length=0, www_authenticate=self._challenge())]
        if path == f"{prefix}tags/list":
            return self._tags(query)
        if path.startswith(f"{prefix}blobs/") and self.redirect:
            return [head(307, content_length=0, location=self.redirect)]
        wants = MANIFEST in request.headers.get("accept", "") or "/blobs/" in path
        kept = {**self.manifests, **self.blobs}.get(path.rpartition("/")[2]) if wants else None
        if kept is None:
            return [head(404, content_length=0)]
        return [head(200, content_length=len(kept)), kept if request.method == "GET" else b""]

    def _challenge(self) -> str:
        return f'Bearer realm="{self.url("/token")}",service="tests"'

    def _token(self, request: Request, query: str) -> Iterable[Action]:
        wanted = {"service": ["tests"], "scope": [f"repository:{self.repository}:pull"]}
        if parse_qs(query) != wanted or request.headers.get("authorization") != self.login:
            return [head(403, content_length=0)]
        document = b'{"token": "a-token", "expires_in": 60}'
        return [head(200, content_length=len(document)), document]

    def _tags(self, query: str) -> Iterable[Action]:
        last = parse_qs(query).get("last", [""])[0]
        tags = sorted(tag for tag in self.manifests if not tag.startswith("sha256:") and tag > last)
        document = json.dumps({"name": self.repository, "tags": tags[: self.page]}).encode()
        return [head(200, content_length=len(document)), document]
