"""The sums of files, all algorithms in one read (the seed's ``multihash.py``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glancing import digests
from glancing.errors import InterruptedRunError
from glancing.model import ALGORITHMS, Digest, LocalPath, Sources
from glancing.pipeline import Hasher

SumsWriter = Callable[[Mapping[str, Sequence[str]]], tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class Sums:
    """Digests of each file as it was named, and the sums files that were written."""

    files: Mapping[str, tuple[Digest, ...]]
    written: tuple[Path, ...]


def write_sums_of(
    names: Sequence[str],
    sources: Sources,
    write: SumsWriter,
    *,
    stop: threading.Event,
    algorithms: Sequence[str] = ALGORITHMS,
) -> Sums:
    """Hash every file, then write one sums file per algorithm with a line for each.

    ``write`` gets file names and whole lines, as ``md5sum`` and its sisters print them. Nothing is
    written when one file cannot be read; raises DownloadError and what ``write`` raises.
    """
    files = {name: _digests(name, sources, stop, algorithms) for name in dict.fromkeys(names)}
    lines = {
        digests.sums_file_name(algorithm): [
            digests.sums_line(digest, name)
            for name in names
            for digest in files[name]
            if digest.algorithm == algorithm
        ]
        for algorithm in algorithms
    }
    return Sums(files, write(lines))


def _digests(
    name: str, sources: Sources, stop: threading.Event, algorithms: Sequence[str]
) -> tuple[Digest, ...]:
    with sources.open(LocalPath(Path(name))) as stream, Hasher(algorithms) as hasher:
        for piece in stream:
            if stop.is_set():
                raise InterruptedRunError("the run was told to stop")
            hasher.update(piece)
        return hasher.digests()
