"""Events on stderr: one JSON object per line, or readable lines on a terminal.

Everything that a library or Python itself would print there goes through the same door: standard
logging, warnings, and exceptions that nobody caught. On its way every text loses what must stay
secret: user info and queries of URLs, and the values of the variables that hold secrets.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, TextIO, cast
from urllib.parse import quote, quote_plus

import structlog

from glancing.model import Events

# These match whether there is a secret or not, so that no text is scanned twice: a hostile one must
# not cost more than its length.
_USER_INFO = re.compile(r"(://)[^/\s?#@]*(?:@[^/\s?#@]*)*@")
_QUERY = re.compile(r"(://[^\s?#]*)([?#][^\s\"<>]*)?")
_PATH_QUERY = re.compile(r"((?:^|(?<=[\s\"'(=]))/[^\s?#\"<>]*)(\?[^\s\"<>]*)?")
_CLOSING = "')]}.,;:"  # what follows a URL in a sentence
_SECRET_NAMES = re.compile(r"(?i)PASSWORD|SECRET|TOKEN|PASSCODE|PASSPHRASE")
_HIDDEN = "[hidden]"
_SHORTEST_SECRET = 4  # a shorter one would blank out harmless words

Processor = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the environment that must never be printed, the longest first."""
    found = {
        value
        for name, value in environ.items()
        if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST_SECRET
    }
    return tuple(sorted(found, key=len, reverse=True))


class Redactor:
    """Takes secrets out of texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Take these out, too, from now on; words too short to be told from others stay."""
        told = (secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)
        spellings = {spelling for secret in told for spelling in _spellings(secret)}
        self._secrets = tuple(sorted({*self._secrets, *spellings}, key=len, reverse=True))

    def text(self, text: str) -> str:
        """The text without URL user info, URL queries and known secrets."""
        text = _USER_INFO.sub(r"\1", text)
        text = _QUERY.sub(_without_query, text)
        text = _PATH_QUERY.sub(_without_query, text)
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def value(self, value: Any) -> Any:
        """The same for whatever an event or a result holds, at any depth."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case float() if not math.isfinite(value):
                return str(value)  # JSON has no such numbers
            case None | bool() | int() | float():
                return value
            case _:
                return self.text(str(value))

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Work as a structlog processor."""
        return {key: self.value(item) for key, item in event.items()}


def _spellings(secret: str) -> set[str]:
    """A secret as it stands in plain text, in JSON, in a repr and in a URL."""
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], *quoted}


def _without_query(found: re.Match[str]) -> str:
    query = found[2] or ""
    return found[1] + query[len(query.rstrip(_CLOSING)) :]


def set_up(stream: TextIO, *, console: bool, verbose: bool, redactor: Redactor) -> Events:
    """Send all events to ``stream`` and return where the program's own go.

    ``verbose`` adds debug events of our own; libraries stay at warnings, because at debug level
    they print headers, queries and bodies.
    """
    shared = _shared_processors()
    renderer = _renderer(stream, console=console)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library_event, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exception_as_text,
                redactor,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("glancing").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    events = cast("Events", structlog.stdlib.get_logger("glancing"))
    _catch_uncaught(events)
    return events


def _shared_processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderer(stream: TextIO, *, console: bool) -> Any:
    if console:
        return structlog.dev.ConsoleRenderer(colors=stream.isatty())
    return structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=True, default=str)


def _library_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A library's message becomes a field: our events have names, not sentences."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library.logged", "logger": record.name, "message": event["event"]}


def _exception_as_text(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[0] is not None:
        event["traceback"] = "".join(traceback.format_exception(*info))
    return event


def _catch_uncaught(events: Events) -> None:
    """Python's own last words become events as well."""

    def of_process(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        events.error("program.crashed", exc_info=(kind, error, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        events.error("program.thread_crashed", exc_info=args.exc_value)

    def unraisable(args: Any) -> None:
        events.error("program.cleanup_failed", exc_info=args.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable
