"""Ends a run at one of its requests, from outside: nothing in the program knows of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha1, sha512
from pathlib import Path
from subprocess import Popen

from tests import images
from tests.marketplace import Marketplace
from tests.program import Program, Run
from tests.servers import Break, Call, Fault, FaultProxy, When
from tests.servers.faults import BrokenOffError, Exchange, Reply
from tests.shelf import Image, Shelf

SIZE_BYTES = 12 * 1024
PATIENCE_S = 60.0


class Moment(Enum):
    """When in the life of a request the run is ended."""

    BEFORE = "before"
    IN_THE_BODY = "in the body of"
    IN_THE_ANSWER = "in the answer to"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of one operation: the ``turn``-th request of a phase, counted from 0."""

    operation: str
    phase: str
    turn: int
    moment: Moment
    size_bytes: int = SIZE_BYTES

    @property
    def name(self) -> str:
        """The name of the image that is worked on."""
        return f"{self.operation} {self.moment.value} {self.phase} {self.turn}"

    @property
    def key(self) -> str:
        """What the name of a file or an ID can be made of."""
        return sha1(self.name.encode(), usedforsecurity=False).hexdigest()[:20]

    @property
    def old(self) -> bytes:
        """The image that is replaced."""
        return images.raw(self.size_bytes)[:-20] + self.key.encode()

    @property
    def new(self) -> bytes:
        """The image that is wanted; no two points have the same."""
        return images.raw(self.size_bytes)[:-21] + b"!" + self.key.encode()


# What each operation asks of Glance, in this order. An image smaller than the reserve is verified
# before its record is made, so the copy of the old one comes first.
REQUESTS = {
    "upload": ("list", "list", "create", "upload", "confirm", "publish"),
    "replace": (
        *("list", "list", "download", "create", "upload", "confirm", "publish"),
        *("members", "retire"),
    ),
}


def points() -> Iterator[Point]:
    """Every moment of every request."""
    for operation, phases in REQUESTS.items():
        turns = {phase: phases.count(phase) for phase in phases}
        for phase, count in turns.items():
            for turn in range(count):
                for moment in moments_of(phase):
                    yield Point(operation, phase, turn, moment)


def moments_of(phase: str) -> tuple[Moment, ...]:
    """A small request has no middle."""
    middle = {"upload": (Moment.IN_THE_BODY,), "download": (Moment.IN_THE_ANSWER,)}
    return (Moment.BEFORE, *middle.get(phase, ()), Moment.AFTER)


@dataclass(frozen=True, slots=True)
class InTheAnswer(Fault):
    """Call a function after so many bytes of the answer."""

    function: Callable[[], object]
    after_bytes: int

    def reply(self, reply: Reply) -> Reply:
        return replace(reply, body=self._pieces(reply.body))

    def _pieces(self, body: Iterator[bytes]) -> Iterator[bytes]:
        whole = b"".join(body)  # a small image
        yield whole[: self.after_bytes]
        self.function()
        yield whole[self.after_bytes :]


@dataclass(slots=True)
class Trigger:
    """Sends a signal to a process that is started later; a kill also breaks the request off."""

    number: signal.Signals
    process: Future[Popen[bytes]]
    pulled: bool = False

    def __call__(self) -> None:
        process = self.process.result(PATIENCE_S)
        self.pulled = True
        process.send_signal(self.number)
        if self.number is signal.SIGKILL:
            process.wait()
            raise BrokenOffError(Break.RESET)


def fault_at(moment: Moment, trigger: Trigger) -> Fault:
    """What the proxy does to the request."""
    match moment:
        case Moment.BEFORE:
            return Call(trigger, When.EARLY)
        case Moment.IN_THE_BODY:
            return Call(trigger, When.LATE, after_bytes=SIZE_BYTES // 2)
        case Moment.IN_THE_ANSWER:
            return InTheAnswer(trigger, SIZE_BYTES // 2)
        case Moment.AFTER:
            return Call(trigger, When.DONE)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a run that was ended, and of the one after it."""

    point: Point
    pulled: bool
    exit_code: int
    run: Run | None
    between: list[Image]
    after: Run | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """Where operations are played: one marketplace, one Glance, a folder for each image."""

    shelf: Shelf
    market: Marketplace
    folder: Path

    def set(self, point: Point) -> Program:
        """Publish what is wanted, and put into Glance what is to be replaced."""
        folder = self.folder / point.key
        for each in ("", "work", "backups"):
            (folder / each).mkdir(exist_ok=True)
        identifier = self.market.publish(point.key, point.new, "2", title=point.name)
        (folder / "vmlist").write_text(f"{identifier}\n")
        if point.operation == "replace":
            self.shelf.put(point.name, point.old, mpid=identifier, version="1")
        return Program(folder, self.shelf.sandbox.member.environ())

    def end_at(self, point: Point, number: signal.Signals) -> Ended:
        """Run up to a point; after a kill, run once more undisturbed."""
        program = self.set(point)
        trigger = Trigger(number, Future())

        def script(exchange: Exchange) -> Fault | None:
            met = (exchange.phase, exchange.turn) == (point.phase, point.turn)
            return fault_at(point.moment, trigger) if met else None

        with FaultProxy(self.shelf.sandbox.image_url, script) as proxy:
            variables = {"OS_IMAGE_ENDPOINT_OVERRIDE": proxy.origin}
            with program.start(*self.words(), variables=variables) as running:
                trigger.process.set_result(running.process)
                exit_code = running.process.wait(PATIENCE_S)
                run = None if number is signal.SIGKILL else running.finish()
        between = [image for image in self.shelf.all() if point.name in image["name"]]
        after = program.run(*self.words()) if run is None else None
        return Ended(point, trigger.pulled, exit_code, run, between, after, program.cwd)

    def words(self) -> tuple[str, ...]:
        """The command line of every run."""
        places = ("--work-dir", "work", "-b", "backups")
        return ("sync", "-l", "vmlist", "-u", self.market.base, *places)

    def phases(self, point: Point) -> list[str]:
        """What an undisturbed run asks for."""
        program = self.set(point)
        with FaultProxy(self.shelf.sandbox.image_url) as proxy:
            run = program.run(*self.words(), OS_IMAGE_ENDPOINT_OVERRIDE=proxy.origin)
            assert run.exit_code == 0, run.output
            return [phase for phase in proxy.phases if phase != "discover"]


def digest(data: bytes) -> str:
    """The digest that Glance tells of an image."""
    return sha512(data).hexdigest()
