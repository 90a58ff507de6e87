"""Progress bars for people: one for each image on its way, below the events.

Only where stderr is a terminal; everywhere else the event ``image.progressed`` says that a long
transfer is alive.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class Bars:
    """``model.Progress`` on a terminal; a context manager that leaves no bar behind.

    ``stream`` is where events must be written while bars are shown: what goes past it would be
    overwritten by them.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._console = Console(file=terminal)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self.stream = LineStream(self._console)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advanced(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        """Show how far an image is."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(_printable(name), total=total_bytes)
            task = self._tasks[name]
        self._progress.update(task, completed=done_bytes, total=total_bytes)

    def ended(self, name: str) -> None:
        """Take the bar away."""
        with self._lock:
            task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)


class LineStream:
    """A text stream whose lines appear above the bars."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        """Print text that may have colours."""
        if text:
            self._console.print(Text.from_ansi(text, end=""), end="", soft_wrap=True)
            if text.endswith("\n"):
                self._console.line()
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Bars are shown on terminals alone."""
        return True


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)[:60]
