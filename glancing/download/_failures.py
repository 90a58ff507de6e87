"""Names what went wrong, without the texts of libraries: those repeat addresses and secrets."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator

import requests
import urllib3.exceptions

from glancing.errors import DownloadError, ErrorKind, GlancingError
from glancing.model import Events, Url

LIBRARY_ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    AttributeError,  # http.client on a response that another thread has closed
)

_REQUEST_FAILURES: tuple[tuple[type[Exception], str, ErrorKind, bool], ...] = (
    # what was raised, how to say it, its kind, whether it may pass
    (requests.exceptions.SSLError, "TLS failed ({cause})", ErrorKind.UNREACHABLE, False),
    (requests.exceptions.InvalidHeader, "announces two lengths", ErrorKind.INCOMPLETE, False),
    (requests.exceptions.ReadTimeout, "no answer for too long", ErrorKind.STALLED, True),
    (ConnectionRefusedError, "connection refused", ErrorKind.UNREACHABLE, True),
    (requests.exceptions.ConnectionError, "unreachable ({cause})", ErrorKind.UNREACHABLE, True),
    (requests.exceptions.Timeout, "unreachable ({cause})", ErrorKind.UNREACHABLE, True),
)


class _UnknownHostError(DownloadError):
    """No address for a name: worth one more try, but a user who mistyped it is waiting."""


def attempts_for(error: GlancingError) -> int:
    return 2 if isinstance(error, _UnknownHostError) else 1000


def failure(url: Url, reason: str, kind: ErrorKind, *, transient: bool = False) -> DownloadError:
    return DownloadError(f"{url}: {reason}", kind=kind, transient=transient)


def broken_body(exc: Exception, url: Url) -> DownloadError:
    """The error of a transfer that broke."""
    if _find(exc, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return failure(url, "sent nothing for too long", ErrorKind.STALLED, transient=True)
    reason = f"the transfer broke ({_class_of(exc)})"
    return failure(url, reason, ErrorKind.INCOMPLETE, transient=True)


def failed_request(exc: Exception, url: Url) -> DownloadError:
    """The error of a request that got no answer."""
    if _find(exc, urllib3.exceptions.NameResolutionError, socket.gaierror):
        return _UnknownHostError(f"{url}: unknown host", transient=True)
    if certificate := _find(exc, ssl.SSLCertVerificationError):
        return failure(url, f"TLS: {_verify_message(certificate)}", ErrorKind.UNREACHABLE)
    for classes, reason, kind, transient in _REQUEST_FAILURES:
        if _find(exc, classes):
            said = reason.format(cause=_class_of(exc))
            return failure(url, said, kind, transient=transient)
    return failure(url, f"cannot be read ({_class_of(exc)})", ErrorKind.UNREACHABLE)


def _verify_message(exc: BaseException) -> str:
    """OpenSSL's short reason ("certificate has expired"); it knows the host but no path."""
    return str(getattr(exc, "verify_message", "")) or "the certificate is not accepted"


def _find(exc: BaseException, *classes: type[BaseException]) -> BaseException | None:
    """The first exception of these classes among an exception and what it wraps."""
    return next((found for found in _wrapped(exc) if isinstance(found, classes)), None)


def _class_of(exc: BaseException) -> str:
    """The class of the innermost cause: the library's own wrapping says little."""
    return type(list(_wrapped(exc))[-1]).__name__


def _wrapped(exc: BaseException) -> Iterator[BaseException]:
    """An exception and, in turn, what the libraries hide in their attributes and arguments."""
    seen: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        inner = [getattr(current, "reason", None), *current.args, current.__cause__]
        current = next((item for item in inner if isinstance(item, BaseException)), None)


def retry_event(events: Events, url: Url) -> Callable[[GlancingError, int, float], None]:
    def tell(error: GlancingError, attempt: int, wait_s: float) -> None:
        events.warning(
            "download.retried",
            url=url.public,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            reason=error.message,
        )

    return tell
