"""Events: one JSON object per line whatever is in them, and nothing secret in any of them."""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing.logs import Redactor, secrets_of, set_up
from glancing.model import Events

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What ``set_up`` changes in the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("glancing")
    before = (root.handlers[:], root.level, ours.level)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    yield
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


class Log:
    """Everything that was written, and the way to write it."""

    def __init__(self, *secrets: str, console: bool = False, verbose: bool = False) -> None:
        self.stream = io.StringIO()
        redactor = Redactor(secrets)
        self.events: Events = set_up(
            self.stream, console=console, verbose=verbose, redactor=redactor
        )

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One object per line, by a parser that knows no constants beyond JSON's."""
        lines = self.text.split("\n")
        assert lines.pop() == ""
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]


# --- lines ----------------------------------------------------------------------------------------


def test_an_event_has_its_name_its_level_its_time_and_its_fields() -> None:
    log = Log()
    log.events.warning("image.refused", name="web", line=4, digests={"md5": "00"}, backup=None)
    (event,) = log.lines
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "image.refused",
        "level": "warning",
        "name": "web",
        "line": 4,
        "digests": {"md5": "00"},
        "backup": None,
    }


any_text = st.text(st.characters(exclude_categories=[]), max_size=40)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(any_text, inner, max_size=3)
        | st.frozensets(any_text, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(any_text, anything, any_text)
def test_every_line_is_one_json_object(name: str, field: object, message: str) -> None:
    """Fault 57: newlines and escape sequences in names."""
    log = Log("a-secret")
    log.events.info("image.decided", name=name, field=field)
    logging.getLogger("a.library").warning("%s", message)
    try:
        raise ValueError(message)
    except ValueError:
        log.events.error("program.crashed", exc_info=True)
    first, second, third = log.lines
    assert (first["event"], second["event"]) == ("image.decided", "library.logged")
    assert third["traceback"].startswith("Traceback")


def test_a_name_with_line_breaks_and_escapes_stays_what_it_is() -> None:
    log = Log()
    log.events.info("image.decided", name='a\nb\r\x1b[31m{"event": "forged"}\u2028')
    (event,) = log.lines
    assert event["name"] == 'a\nb\r\x1b[31m{"event": "forged"}\u2028'
    assert log.text.isascii() and "\x1b" not in log.text


def test_a_terminal_is_sent_no_control_characters_of_a_name() -> None:
    log = Log(console=True)
    log.events.info("image.decided", name="a\x1b[2J\x9b2J\rb", names=["\x1b]0;x\x07"])
    assert log.text.count("\n") == 1
    assert log.text.rstrip("\n").isprintable()


def test_debug_events_are_for_verbose_runs() -> None:
    for verbose in (False, True):
        log = Log(verbose=verbose)
        structlog.stdlib.get_logger("glancing").debug("image.looked_at")
        assert len(log.lines) == verbose


# --- what others print ----------------------------------------------------------------------------


def test_messages_and_warnings_of_libraries_become_events() -> None:
    log = Log(verbose=True)
    library = logging.getLogger("urllib3.connectionpool")
    library.warning("Retrying %r", "x")
    library.info("quiet")
    library.debug("quieter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old spelling", DeprecationWarning, stacklevel=1)
    first, second = log.lines
    assert first["event"] == second["event"] == "library.logged"
    assert (first["logger"], first["message"]) == ("urllib3.connectionpool", "Retrying 'x'")
    assert first["level"] == "warning" and first["timestamp"]
    assert second["logger"] == "py.warnings" and "old spelling" in second["message"]


def crash() -> None:
    raise ValueError(f"https://user:{SECRET}@example.org/x?sig={SECRET}")


def test_a_thread_that_crashes_is_an_event() -> None:
    log = Log()
    thread = threading.Thread(target=crash)
    thread.start()
    thread.join()
    (event,) = log.lines
    assert event["event"] == "program.thread_crashed"
    assert "ValueError: https://example.org/x" in event["traceback"]
    assert SECRET not in log.text


def test_a_clean_up_that_fails_is_an_event() -> None:
    class Broken:
        def __del__(self) -> None:
            crash()

    log = Log()
    Broken()
    gc.collect()
    assert log.lines[0]["event"] == "program.cleanup_failed"
    assert SECRET not in log.text


def test_an_exception_that_nobody_caught_is_an_event() -> None:
    log = Log()
    try:
        crash()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    (event,) = log.lines
    assert event["event"] == "program.crashed" and "in crash" in event["traceback"]
    assert SECRET not in log.text


# --- secrets --------------------------------------------------------------------------------------

LEAKS = (
    "https://user:s3cr3t@example.org/x",
    "https://s3cr3t@example.org/x",
    "https://user:p@s3cr3t@example.org/x",
    "https://us'er:s3cr3t@example.org/x",
    "_https://user:s3cr3t@example.org/x",
    "HTTPS://user:s3cr3t@example.org/x",
    "1https://user:s3cr3t@example.org",
    "postgresql+psycopg2://user:s3cr3t@db/x",
    "https://example.org/x?sig=s3cr3t",
    "https://example.org?sig=s3cr3t",
    "https://example.org/x#token=s3cr3t",
    "https://example.org/x?a=(1)&sig=s3cr3t",
    "https://example.org/x?a='1'&sig=s3cr3t",
    "https://example.org/it's?sig=s3cr3t",
    "https://example.org/(x)?sig=s3cr3t",
    "https://example.org/x?a=1?sig=s3cr3t#s3cr3t",
    "https://example.org/x?sig=s3cr3t.",
    "<https://example.org/x?sig=s3cr3t>",
    '"https://example.org/x?sig=s3cr3t"',
    "https://a.org/?x=s3cr3t and https://u:s3cr3t@b.org/?y=s3cr3t",
    "Max retries exceeded with url: /x?sig=s3cr3t (Caused by ...)",
    "Retrying after connection broken by 'X': /a/b?sig=s3cr3t",
    '"GET /a/b?sig=s3cr3t HTTP/1.1" 200',
    "url=/a?sig=s3cr3t",
    "/a?sig=s3cr3t",
    "https://example.org/x?\nhttps://example.org/x?sig=s3cr3t",
)


def as_field(log: Log, text: str) -> None:
    log.events.info("image.failed", url=text)


def as_nested_field(log: Log, text: str) -> None:
    log.events.info("image.failed", one={"two": [text, {text: (text,)}]})


def as_object(log: Log, text: str) -> None:
    log.events.info("image.failed", error=ValueError(text), raw=text.encode())


def as_exception(log: Log, text: str) -> None:
    try:
        try:
            raise ConnectionError(text)
        except ConnectionError as error:
            raise ValueError(f"wrapped: {text}") from error
    except ValueError:
        log.events.error("program.crashed", exc_info=True)


def as_library_message(_log: Log, text: str) -> None:
    logging.getLogger("a.library").error("it was %s", text)


def as_library_exception(_log: Log, text: str) -> None:
    try:
        raise ConnectionError(text)
    except ConnectionError:
        logging.getLogger("a.library").exception("it failed")


def as_warning(_log: Log, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, stacklevel=1)


WAYS: tuple[Callable[[Log, str], None], ...] = (
    as_field,
    as_nested_field,
    as_object,
    as_exception,
    as_library_message,
    as_library_exception,
    as_warning,
)


@pytest.mark.parametrize("console", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", LEAKS)
def test_user_info_and_queries_are_in_no_event(
    text: str, way: Callable[[Log, str], None], console: bool
) -> None:
    """Fault 56: everything but the program's own text of a source line in a traceback."""
    log = Log(console=console)
    way(log, text)
    assert log.text
    assert SECRET not in log.text


url_characters = st.text("abcXYZ019-._~!$&'()*+,;=:%@", max_size=12)


@settings(max_examples=300, deadline=None)
@given(url_characters, url_characters, url_characters, st.sampled_from((" ", "'", ")", ": ", "")))
def test_no_url_keeps_its_query(path: str, before: str, after: str, end: str) -> None:
    url = f"https://example.org/{path}?{before}s3cr3t{after}"
    redacted = Redactor().text(f"GET '{url}{end}")
    assert SECRET not in redacted
    assert redacted.startswith(f"GET 'https://example.org/{path}")


@settings(max_examples=300, deadline=None)
@given(url_characters, url_characters)
def test_no_url_keeps_its_user_info(user: str, password: str) -> None:
    redacted = Redactor().text(f"https://{user}:s3cr3t{password}@example.org/x?y")
    assert redacted == "https://example.org/x"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("nothing to hide", "nothing to hide"),
        ("ask me@example.org, or not?", "ask me@example.org, or not?"),
        ("https://example.org/x", "https://example.org/x"),
        ("https://example.org/@x/y@z", "https://example.org/@x/y@z"),
        ("(see https://example.org/x?y=1).", "(see https://example.org/x)."),
        ("'https://example.org/x?y=1', then", "'https://example.org/x', then"),
        ('"https://example.org/x?y" and more', '"https://example.org/x" and more'),
        ("either/or? both", "either/or? both"),
        ("https://[::1]:8080/x?y", "https://[::1]:8080/x"),
    ],
)
def test_what_is_not_secret_stays(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize("hostile", ["a.", "://", "/=", "https://a", "?)", "@", "://@", "=/", "x@"])
def test_a_long_text_costs_no_more_than_its_length(hostile: str) -> None:
    """Quadratic work on these megabytes would take hours, and the suite's time limit strikes."""
    text = hostile * (2_000_000 // len(hostile))
    assert len(Redactor().text(text)) <= len(text)


def test_values_of_secret_variables_are_hidden() -> None:
    environ = {
        "OS_PASSWORD": "hunter22",
        "OS_APPLICATION_CREDENTIAL_SECRET": "hunter22-and-more",
        "OS_TOKEN": "gAAAA",
        "GLANCING_KEY_PASSPHRASE": 'with "quotes" \\ and ünicode /',
        "SHORT_PASSWORD": "abc",
        "EMPTY_PASSWORD": "",
        "OS_USERNAME": "somebody",
    }
    secrets = secrets_of(environ)
    assert secrets == (
        'with "quotes" \\ and ünicode /',
        "hunter22-and-more",
        "hunter22",
        "gAAAA",
    )
    log = Log(*secrets)
    for secret in secrets:
        log.events.info("cloud.refused", text=f"<{secret}>", error=ValueError([secret]))
        log.events.info("cloud.refused", text=json.dumps({"password": secret}))
    log.events.info(
        "cloud.refused", text="with+%22quotes%22+%5C+and+%C3%BCnicode+%2F", who="somebody"
    )
    log.events.info("cloud.refused", text="abc")
    assert [line["text"] for line in log.lines] == [
        *["<[hidden]>", '{"password": "[hidden]"}'] * 4,
        "[hidden]",
        "abc",
    ]
    for word in ("hunter22", "and-more", "gAAAA", "quotes"):
        assert word not in log.text
    assert "somebody" in log.text


def test_a_field_that_is_no_text_keeps_its_type() -> None:
    value = {"a": [1, 2.5, None, True], "b": ("x", {"y"})}
    assert Redactor().value(value) == {"a": [1, 2.5, None, True], "b": ["x", ["y"]]}
