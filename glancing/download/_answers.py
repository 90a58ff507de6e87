"""What the headers of an answer say, and where a redirect may lead."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urljoin, urlunsplit

import requests

from glancing.download._failures import failure
from glancing.errors import DownloadError, ErrorKind
from glancing.model import Clock, Url, Validators

SCHEMES = ("http", "https")

# What may be different a little later (RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4).
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Last-Modified is a strong validator only when it is clearly older than the answer
# (RFC 9110, section 8.8.2.2; the minute is that of RFC 7232).
STRONG_AFTER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the headers of an answer say of the file."""

    validators: Validators = field(default_factory=Validators)
    strong_validator: str | None = None
    takes_ranges: bool = False

    @classmethod
    def of(cls, response: requests.Response) -> Answer:
        ranges = response.headers.get("Accept-Ranges", "").strip().lower()
        return cls(validators_of(response), _strong_validator(response), ranges == "bytes")

    @property
    def resumable(self) -> bool:
        """Whether the rest can be asked for without a risk of mixing two versions."""
        return self.takes_ranges and self.strong_validator is not None

    def same_bytes_as(self, other: Answer) -> bool:
        """Whether the headers alone prove that both are of the same bytes."""
        return self.strong_validator is not None and self.strong_validator == other.strong_validator


def validators_of(response: requests.Response) -> Validators:
    return Validators(
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size_bytes=announced_size(response),
    )


def announced_size(response: requests.Response) -> int | None:
    """Content-Length in bytes; None when absent, overruled by chunks, or no length at all."""
    text = response.headers.get("Content-Length", "")
    first = text.partition(",")[0].strip()  # "42, 42" is one length (RFC 9110, section 8.6)
    if "Transfer-Encoding" in response.headers or not (first.isascii() and first.isdigit()):
        return None
    return int(first)


def _strong_validator(response: requests.Response) -> str | None:
    """What If-Range may carry (RFC 9110, section 13.1.5): a strong ETag, else an old date."""
    etag = response.headers.get("ETag")
    if etag is not None:
        return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 1 else None
    modified = _http_date(response.headers.get("Last-Modified"))
    date = _http_date(response.headers.get("Date"))
    if modified is None or date is None or date - modified < STRONG_AFTER:
        return None
    return response.headers["Last-Modified"]


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_labelled_gzip(response: requests.Response, url: Url) -> bool:
    """Whether Content-Encoding says gzip; raises DownloadError when it says anything else.

    Nothing is ever decoded. Some mirrors label a ``.gz`` file that way, and then the bytes are the
    published ones; any other encoding was not asked for (RFC 9110, section 12.5.3).
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in {"gzip", "x-gzip"}:
        return True
    if coding in {"", "identity"}:
        return False
    raise failure(url, "encoded by the server, which was not asked for", ErrorKind.HTTP_STATUS)


def require_status(
    response: requests.Response, url: Url, clock: Clock, statuses: Collection[int]
) -> None:
    status = response.status_code
    if status in statuses:
        return
    gone = status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
    raise DownloadError(
        f"{url}: the server answered {status}",
        kind=ErrorKind.NOT_FOUND if gone else ErrorKind.HTTP_STATUS,
        transient=status in TRANSIENT_STATUSES,
        retry_after_s=_retry_after_s(response.headers.get("Retry-After"), clock),
    )


def _retry_after_s(text: str | None, clock: Clock) -> float | None:
    """Retry-After in seconds, given as seconds or as a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    moment = _http_date(text)
    return None if moment is None else max(0.0, (moment - clock.now()).total_seconds())


def redirect_target(response: requests.Response, chain: list[Url], most: int) -> Url:
    """Where a redirect leads (RFC 9110, section 10.2.2); raises DownloadError if not to follow."""
    here = chain[-1]
    try:
        # Header bytes arrive as Latin-1; addresses that are not ASCII are UTF-8 in practice.
        location = response.headers.get("Location", "").encode("latin-1").decode("utf-8")
        there = Url(urljoin(without_user_info(here), location).partition("#")[0])
        followable = is_http(there)
    except ValueError:
        raise _refused_redirect(chain, "to something that is no address") from None
    if not location:
        raise _refused_redirect(chain, "to nowhere")
    if not followable:
        raise _refused_redirect(chain, "to something that is neither http nor https")
    if here.parts.scheme == "https" and there.parts.scheme == "http":
        raise _refused_redirect([*chain, there], "from https to http")
    there = Url(without_user_info(there))
    if there in chain:
        raise _refused_redirect([*chain, there], "in a circle")
    if len(chain) > most:
        raise _refused_redirect([*chain, there], f"more than {most} times")
    return there


def _refused_redirect(chain: list[Url], reason: str) -> DownloadError:
    path = " -> ".join(url.public for url in chain)
    return DownloadError(f"{path}: redirects {reason}", kind=ErrorKind.FORBIDDEN_ADDRESS)


def is_http(url: Url) -> bool:
    parts = url.parts
    try:
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def without_user_info(url: Url) -> str:
    parts = url.parts
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def refuse_large(url: Url, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise failure(url, f"larger than {max_bytes} bytes", ErrorKind.TOO_LARGE)
