"""Tells the result of a run in the places where its scheduler looks for it.

Kubernetes shows the termination message of a container, GitHub Actions a summary page and
annotations. None of them is there elsewhere, and none of them can make a run fail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from glancing import report

TERMINATION_LOG = "/dev/termination-log"


def tell_scheduler(document: Mapping[str, Any], environ: Mapping[str, str], stream: TextIO) -> None:
    """Write the termination message, the job summary and the annotations, where they are wanted.

    ``GLANCING_TERMINATION_LOG`` names another file for the first, empty for none; it is written
    only where it exists already, as Kubernetes makes it. Annotations go to ``stream``.
    """
    path = environ.get("GLANCING_TERMINATION_LOG", TERMINATION_LOG)
    if path:
        _overwrite(Path(path), report.last_words(document))
    if environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(environ["GITHUB_STEP_SUMMARY"]), report.markdown(document))
    if environ.get("GITHUB_ACTIONS") == "true":
        for line in report.github_annotations(document):
            stream.write(line + "\n")
        stream.flush()


def _overwrite(path: Path, text: str) -> None:
    with suppress(OSError):
        # Without O_CREAT: where nobody made the file, nobody will read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def _append(path: Path, text: str) -> None:
    with suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(text)
