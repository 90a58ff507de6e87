"""Long campaigns, beyond what the test suite tries.

``python3 -m tests.fuzz --sequences 100000 --minutes 10`` runs random histories of the whole job
until one of the two is reached; ``--seed`` repeats a campaign. ``python3 -m tests.fuzz parsers
--minutes 5 [TARGET…]`` gives the parsers variants of their corpora, under atheris where it can be
imported, else by a mutator of our own. Both end with figures, and with exit code 1 when something
was found: the shortest history, or a file with the bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import FIGURES, Machine
from tests.fuzz.mutate import MAX_BYTES, mutate
from tests.fuzz.targets import CORPUS, TARGETS, corpus, judge

BATCH = 100


def main(words: Sequence[str]) -> int:
    arguments = _arguments(words)
    if arguments.what == "one-target":
        return _under_atheris(arguments.targets[0], arguments.minutes)
    if arguments.what == "parsers":
        return _parsers(arguments.targets or list(TARGETS), arguments.minutes, arguments.seed)
    return _histories(arguments.sequences, arguments.minutes, arguments.seed)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python3 -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["histories", "parsers", "one-target"], default="histories"
    )
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    return parser.parse_args(words)


# --- histories of the whole job -------------------------------------------------------------------


def _histories(sequences: int, minutes: float, first_seed: int) -> int:
    deadline_s, found, number = time.monotonic() + 60 * minutes, 0, 0
    while FIGURES["histories"] < sequences and time.monotonic() < deadline_s:
        found += _batch(first_seed + number, min(BATCH, sequences))
        number += 1
    print(f"seed {first_seed}, batches {number}, batches with a broken promise {found}")
    for what, count in sorted(FIGURES.items()):
        print(f"{count:10} {what}")
    return 1 if found else 0


def _batch(number: int, sequences: int) -> int:
    profile = settings(
        max_examples=sequences,
        stateful_step_count=20,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(Machine), settings=profile)
    except Exception:  # noqa: BLE001 - shown, counted, and the next batch goes on
        traceback.print_exc()
        return 1
    return 0


# --- parsers --------------------------------------------------------------------------------------


def _parsers(names: Sequence[str], minutes: float, number: int) -> int:
    found = 0
    for name in names:
        share = minutes / len(names)
        if importlib.util.find_spec("atheris"):
            found += _in_a_process(name, share)
        else:
            found += _by_ourselves(name, share, number)
    return 1 if found else 0


def _in_a_process(name: str, minutes: float) -> int:
    """One target under atheris, which never gives its process back."""
    command = [sys.executable, "-m", "tests.fuzz", "one-target", name, "--minutes", str(minutes)]
    return int(subprocess.run(command, check=False).returncode != 0)


def _under_atheris(name: str, minutes: float) -> int:
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as gathered:
        limits = [f"-max_total_time={max(1, round(60 * minutes))}", f"-max_len={MAX_BYTES}"]
        arguments = [sys.argv[0], gathered, str(CORPUS / name), "-print_final_stats=1", *limits]
        atheris.Setup(arguments, lambda data: int(not judge(name, data)) * 0)
        atheris.Fuzz()
    return 0


def _by_ourselves(name: str, minutes: float, number: int) -> int:
    chance, documents = random.Random(number), corpus(name)
    deadline_s, tried, taken = time.monotonic() + 60 * minutes, 0, 0
    while time.monotonic() < deadline_s:
        data = mutate(chance.choice(documents), chance.choice(documents), chance)
        tried += 1
        try:
            taken += judge(name, data)
        except BaseException:  # noqa: BLE001 - that is what is looked for
            traceback.print_exc()
            print(f"{name}: found after {tried}: {_kept(name, data)}")
            return 1
    print(f"{name:16} {tried:9} tried {taken:9} taken         0 found (seed {number})")
    return 0


def _kept(name: str, data: bytes) -> Path:
    """A file with the bytes that broke a parser."""
    path = Path(f"found-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
