"""Puts a run together: real sources, directories, clock, cloud, signals, and what is printed.

The environment is read here and in ``cli``, and nowhere else.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from glancing import logs, report
from glancing.addresses import AddressRules, Network
from glancing.carrier import Mode
from glancing.catalogue import Catalogue
from glancing.download import HttpSettings, HttpSources
from glancing.errors import (
    CloudError,
    ConfigError,
    ErrorKind,
    ExitCode,
    GlancingError,
    ImageListError,
    RunInterrupted,
)
from glancing.files import Directories, LocalSources, read_document, write_sums
from glancing.intake import NoProgress, Tools
from glancing.job import Job
from glancing.model import (
    NO_TRUST,
    ErrorReport,
    Events,
    ImageStore,
    LocalPath,
    Location,
    Options,
    Progress,
    Reading,
    SourceStream,
    Trust,
    Url,
    Validators,
)
from glancing.outlets import tell_scheduler
from glancing.report import RunResult
from glancing.settings import cloud_environment
from glancing.signatures import MAX_KEYRING_BYTES, Authorities, Verifier, read_keyring
from glancing.signed import SignedDocuments
from glancing.source_auth import (
    MAX_LOGINS_BYTES,
    NO_LOGINS,
    Logins,
    certificates_of,
    parse_logins,
    secrets_of,
)
from glancing.sums import write_sums_of

_INSISTING_S = 0.2
_SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()


class AllSources:
    """``model.Sources`` for every kind of location."""

    def __init__(self, http: HttpSources, local: LocalSources) -> None:
        self._http = http
        self._local = local

    def vouch(self, locations: Iterable[Location]) -> None:
        """The operator's own words name these."""
        self._http.vouch(location for location in locations if isinstance(location, Url))

    def names_in(self, location: Location) -> tuple[str, ...] | None:
        """The names of all files in a folder; None for what is none. Raises DownloadError."""
        return self._local.names_in(location) if isinstance(location, LocalPath) else None

    def open(self, location: Location) -> AbstractContextManager[SourceStream]:
        """The stream of one source; raises DownloadError."""
        match location:
            case Url():
                return self._http.open(location)
            case LocalPath():
                return self._local.open(location)

    def probe(self, location: Location) -> Validators:
        """What the source says of itself; raises DownloadError."""
        match location:
            case Url():
                return self._http.probe(location)
            case LocalPath():
                return self._local.probe(location)

    def read(self, location: Location, max_bytes: int) -> bytes:
        """A whole document; raises DownloadError."""
        match location:
            case Url():
                return self._http.read(location, max_bytes)
            case LocalPath():
                return self._local.read(location, max_bytes)


@dataclass(frozen=True, slots=True)
class Session:
    """One process: where its events go, what stops it, and how secrets are kept out.

    ``resources`` are given back when it ends.
    """

    events: Events
    stop: threading.Event
    redactor: logs.Redactor
    run_id: str
    progress: Progress
    resources: ExitStack

    def access(
        self, networks: Sequence[Network], source_auth: Path | None, *, netrc: bool
    ) -> HttpSettings:
        """Where sources may be and how to log in to them; ConfigError for a bad file of logins."""
        logins = _read_logins(source_auth) if source_auth else NO_LOGINS
        self.redactor.learn(secrets_of(logins))
        return HttpSettings(addresses=AddressRules(tuple(networks)), logins=logins, netrc=netrc)

    def signed_documents(
        self, keyring: Path | None, ca_dir: Path | None = None, trust: Trust = NO_TRUST
    ) -> SignedDocuments:
        """What has to be signed, and by whom; ConfigError for what holds no key or authority."""
        keys = authorities = None
        if keyring is not None:
            keys = read_keyring(read_document(keyring, MAX_KEYRING_BYTES), str(keyring))
        if ca_dir is not None:
            authorities = Authorities.at(ca_dir, self.stop)
        verifier = Verifier(SystemClock(), keyring=keys, authorities=authorities)
        return SignedDocuments(self.events, verifier, trust)

    def tools(self, directories: Directories, access: HttpSettings) -> Tools:
        """The real tools of a run."""
        return Tools(
            sources=self._sources(access),
            workspace=directories,
            clock=SystemClock(),
            events=self.events,
            stop=self.stop,
            progress=self.progress,
        )

    def _sources(self, access: HttpSettings | None = None) -> AllSources:
        clock = SystemClock()
        http = HttpSources(events=self.events, clock=clock, settings=access, stop=self.stop)
        return AllSources(http, LocalSources(stop=self.stop))

    def job(
        self,
        command: str,
        options: Options,
        *,
        mode: Mode = Mode.APPLY,
        marketplace: Url,
        reading: Reading | None = None,
        work_dir: Path | None = None,
        backup_dir: Path | None = None,
        access: HttpSettings | None = None,
        signed: SignedDocuments | None = None,
        cloud_needed: bool = True,
    ) -> Job:
        """A run of ``command``; raises ConfigError when a directory cannot be used."""
        directories = Directories(work_dir=work_dir, backup_dir=backup_dir)
        directories.check(spool_needed=options.spool)
        if mode is not Mode.PLAN and not directories.can_spool:
            reason = "no work directory can be written to: one pass only, no second attempt by disk"
            self.events.warning("work_dir.unusable", reason=reason)
        if mode is not Mode.PLAN:
            self.resources.enter_context(directories.held_by(self.run_id))
        tools = self.tools(directories, access or HttpSettings())
        folder = _working_directory()
        asked = reading or Reading()
        catalogue = Catalogue(
            tools.sources, self.events, tools.clock, marketplace, folder, asked, signed
        )
        without_cloud = not cloud_needed and not any(key.startswith("OS_") for key in os.environ)
        connect = None if without_cloud else self._connect
        return Job(command, self.run_id, catalogue, connect, tools, options, mode)

    def hash_files(
        self, files: Sequence[str], directory: Path, *, overwrite: bool
    ) -> dict[str, Any]:
        """Write the sums of files, and return the result; raises ConfigError, DownloadError."""
        writer = functools.partial(write_sums, directory, overwrite=overwrite)
        sums = write_sums_of(files, self._sources(), writer, stop=self.stop)
        return {
            "schema": report.SCHEMA,
            "run_id": self.run_id,
            "command": "hash",
            "exit_code": int(ExitCode.OK),
            "written": [str(path) for path in sums.written],
            "files": [
                {"name": name, "digests": {each.algorithm: each.value for each in found}}
                for name, found in sums.files.items()
            ],
        }

    def _connect(self) -> ImageStore:
        found = cloud_environment(os.environ)
        for name in found.drop:
            os.environ.pop(name, None)
        os.environ.update(found.assign)
        if found.v2_taken_as_v3:
            self.events.warning("cloud.v2_taken_as_v3", auth_url=os.environ["OS_AUTH_URL"])
        # The SDK looks for its files in the home directory, and cannot be loaded without one.
        if not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117 - Path.home raises
            os.environ["HOME"] = "/"
        # The SDK takes most of a second to import, and not every command needs it.
        from glancing import glance  # noqa: PLC0415

        store = glance.connect()
        self.events.info("cloud.connected")
        return store


def carry_out(command: str, run: Callable[[Session], Mapping[str, Any]], *, verbose: bool) -> int:
    """Run one command, print its result, and return the exit code; catches once per process."""
    with _session(verbose=verbose) as session:
        _catch_signals(session.stop)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # blocked while we were loaded
            document = run(session)
            session.stop.set()  # what is left is to tell; a signal has nothing to end any more
        except (GlancingError, RunInterrupted) as error:
            session.stop.set()
            document = _ended_early(session, command, error)
        except Exception as error:  # noqa: BLE001 - who waits for a result gets one
            session.stop.set()
            session.events.error("program.crashed", exc_info=error)
            unexpected = f"unexpected {type(error).__name__}"
            crash = GlancingError(unexpected, kind=ErrorKind.INTERNAL)
            document = _ended_early(session, command, crash)
        _tell_end(session.events, document)
    told = session.redactor.value(document)
    print_result(told, sys.stdout)
    tell_scheduler(told, os.environ, sys.stderr)
    return int(document["exit_code"])


def _read_logins(path: Path) -> Logins:
    try:
        logins = parse_logins(read_document(path, MAX_LOGINS_BYTES), path.parent)
    except ConfigError as error:
        shown = error.message.removeprefix(f"{path}: ")
        raise ConfigError(f"{path}: {shown}") from error
    for file in certificates_of(logins):
        if not os.access(file, os.R_OK):
            raise ConfigError(f"{path}: the certificate or key {file} cannot be read")
    return logins


def _working_directory() -> Path:
    """Where relative paths start; ConfigError when somebody has removed it."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working directory cannot be used: {error.strerror}") from error


def _tell_end(events: Events, document: Mapping[str, Any]) -> None:
    fields = {key: document.get(key) for key in ("command", "exit_code", "seconds", "counts")}
    known = {key: value for key, value in fields.items() if value is not None}
    events.info("run.finished", **known)


def refuse_usage(command: str, message: str) -> int:
    """Tell of a command line that cannot be understood, as every other end of a run is told."""

    def run(_session: Session) -> Mapping[str, Any]:
        raise ConfigError(message, kind=ErrorKind.USAGE, hint="glancing --help")

    return carry_out(command, run, verbose=False)


@contextmanager
def _session(*, verbose: bool) -> Iterator[Session]:
    """Where events go, for as long as the command runs: to bars and lines, or JSON lines alone."""
    console = wants_console(os.environ, sys.stderr)
    redactor = logs.Redactor(logs.secrets_of(os.environ))
    with ExitStack() as stack:
        stream: TextIO = sys.stderr
        progress: Progress = NoProgress()
        if console and sys.stderr.isatty():
            from glancing.progress import Bars  # noqa: PLC0415 - rich is slow to import

            bars = stack.enter_context(Bars(sys.stderr))
            progress, stream = bars, cast("TextIO", bars.stream)
        events = logs.set_up(stream, console=console, verbose=verbose, redactor=redactor)
        yield Session(events, threading.Event(), redactor, uuid.uuid4().hex, progress, stack)


def wants_console(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether events are lines for people: on a terminal, or where the variable says so."""
    asked = environ.get("GLANCING_LOG_FORMAT", "").lower()
    return asked == "console" or (asked != "json" and stream.isatty())


def _ended_early(
    session: Session, command: str, error: GlancingError | RunInterrupted
) -> dict[str, Any]:
    """The result of a run that ended before it had any rows."""
    if isinstance(error, RunInterrupted):
        session.events.warning("run.interrupted", exit_code=int(error.exit_code))
        told = ErrorReport("interrupted", "the run was told to stop")
        code: int = error.exit_code
    else:
        told = ErrorReport(error.kind.value, error.message, error.hint)
        code = _code_of(error)
        session.events.error("run.failed", kind=told.kind, error=told.message, hint=told.hint)
    result = RunResult(session.run_id, command, exit_code=code, error=told)
    return report.as_document(result)


def _code_of(error: GlancingError) -> ExitCode:
    match error:
        case CloudError():
            return ExitCode.CLOUD
        case ConfigError() | ImageListError():
            return ExitCode.USAGE
        case _:
            return ExitCode.IMAGES_FAILED


def _catch_signals(stop: threading.Event) -> None:
    """Turn the first SIGINT or SIGTERM into the end of the run, and later ones into nothing."""

    def end(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            return
        stop.set()
        raise RunInterrupted(_SIGNALS[signal.Signals(number)])

    for number in _SIGNALS:
        signal.signal(number, end)
    _insist(stop)


def _insist(stop: threading.Event) -> None:
    """Repeat a signal until the main thread has taken notice of it.

    Python runs handlers in the main thread. When that begins to wait in the very moment in which
    the signal comes, or when another thread gets it, nothing ends the wait.
    """
    main = threading.get_ident()
    noted, told = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def repeat() -> None:
        while number := os.read(noted, 1):
            while not stop.wait(_INSISTING_S):
                signal.pthread_kill(main, number[0])

    threading.Thread(target=repeat, name="glancing-signals", daemon=True).start()


def print_result(document: Mapping[str, Any], stream: TextIO) -> None:
    """JSON, or a table on a terminal.

    A reader that went away or a disk that is full is no failure of the run, which is over.
    """
    try:
        if stream.isatty() and "images" in document:
            _print_table(document)
        else:
            stream.write(json.dumps(document, ensure_ascii=True) + "\n")
        stream.flush()
    except OSError:
        # Python would fail once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_table(document: Mapping[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and rarely needed
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("image", "outcome", "id", "why")
    for row in report.table_rows(document):
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)
