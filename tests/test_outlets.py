"""Termination messages, job summaries and annotations say what the result says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glancing.model import ErrorReport, ImageResult, Origin, Outcome
from glancing.outlets import tell_scheduler
from glancing.report import RunResult, as_document, github_annotations, last_words, markdown


def document(*names: str, message: str = "wrong sha256 of the image") -> dict[str, Any]:
    error = ErrorReport("wrong-digest", message, "ask the publisher")
    rows = [
        ImageResult(name, "d", Origin(), "upload", "new", Outcome.FAILED, error=error)
        for name in names
    ]
    good = ImageResult("good", "d", Origin(), "skip", "same bytes", Outcome.UNCHANGED)
    return as_document(RunResult("r", "sync", images=(good, *rows), exit_code=1))


def test_the_termination_message_is_written_where_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("x" * 10_000)
    tell_scheduler(document("bad"), {"GLANCING_TERMINATION_LOG": str(path)}, io.StringIO())
    assert path.read_text().splitlines() == [
        "glancing sync: exit code 1; 1 unchanged, 1 failed",
        "bad: wrong-digest: wrong sha256 of the image (ask the publisher)",
    ]


def test_nothing_is_made_where_nobody_looks(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    tell_scheduler(document("bad"), {"GLANCING_TERMINATION_LOG": str(path)}, io.StringIO())
    tell_scheduler(document("bad"), {"GLANCING_TERMINATION_LOG": ""}, io.StringIO())
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    environ = {"GLANCING_TERMINATION_LOG": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path)}
    tell_scheduler(document("bad"), environ, io.StringIO())


def test_a_long_termination_message_keeps_to_what_kubernetes_keeps() -> None:
    text = last_words(document(*["é" * 200] * 100))
    assert len(text.encode()) <= 4096 and text.endswith("…\n")


def test_the_summary_is_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    out = io.StringIO()
    environ = {"GLANCING_TERMINATION_LOG": "", "GITHUB_STEP_SUMMARY": str(path)}
    tell_scheduler(document("a|b"), environ, out)
    text = path.read_text()
    assert text.startswith("before\n### glancing sync: 1 unchanged, 1 failed\n")
    assert "| a\\|b | upload | failed |" in text and not out.getvalue()


def test_annotations_appear_on_github_alone() -> None:
    out = io.StringIO()
    environ = {"GLANCING_TERMINATION_LOG": "", "GITHUB_ACTIONS": "true"}
    tell_scheduler(document("a:b,c", message="50%\nof it"), environ, out)
    assert out.getvalue() == (
        "::error title=a%3Ab%2Cc::wrong-digest: 50%25%0Aof it (ask the publisher)\n"
    )


@given(st.text(), st.text())
def test_no_name_and_no_message_break_out_of_their_line(name: str, message: str) -> None:
    told = document(name or "x", message=message)
    assert len(github_annotations(told)) == 1
    assert not {"\n", "\r"} & set(github_annotations(told)[0])
    rows = [line for line in markdown(told).split("\n") if line.startswith("| ")]
    assert len(rows) == 3 and all(row.replace("\\|", "").count("|") == 6 for row in rows)


def test_a_real_run_leaves_its_last_words(tmp_path: Path) -> None:
    log, summary = tmp_path / "termination-log", tmp_path / "summary.md"
    log.touch()
    environ = {
        "PATH": os.environ["PATH"],
        "GLANCING_TERMINATION_LOG": str(log),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    command = [sys.executable, "-m", "glancing", "sync", "-l", "missing-list"]
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert done.returncode == 2
    assert log.read_text().startswith("glancing sync: exit code 2")
    assert "missing-list" in log.read_text() and "missing-list" in summary.read_text()
