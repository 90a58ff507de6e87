"""The result object: its shape is a promise, and the exit code tells the truth."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from glancing.errors import ExitCode
from glancing.model import Digest, ErrorReport, ImageResult, Integrity, Origin, Outcome
from glancing.report import RunResult, as_document, exit_code, table_rows

PLAIN = ImageResult(
    name="web",
    descriptor="https://images.example.org/web.qcow2",
    origin=Origin(1, 4, "images.list"),
    decision="upload",
    reason="Glance has nothing of the kind",
    outcome=Outcome.UPLOADED,
    image_id="an-id",
    size_bytes=10,
    disk_format="qcow2",
    digests=(Digest("sha256", "aa"), Digest("sha512", "bb")),
    matched=("sha256 of the image",),
    integrity=Integrity.PUBLISHED,
    seconds=1.23456,
)
FAILED = ImageResult(
    name="",
    descriptor="an-id-of-the-marketplace",
    origin=Origin(),
    decision="refuse",
    reason="downgrade",
    outcome=Outcome.REFUSED,
    error=ErrorReport("downgrade", "version 1 is older than 2", "remove the newer one"),
)


def having(*outcomes: Outcome) -> list[ImageResult]:
    return [replace(PLAIN, outcome=outcome) for outcome in outcomes]


def test_the_document_has_the_shape_of_schema_1() -> None:
    run = RunResult("a-run", "sync", (PLAIN, FAILED), 12.34567, ExitCode.IMAGES_FAILED)
    document = json.loads(json.dumps(as_document(run), allow_nan=False))
    assert document == {
        "schema": 1,
        "run_id": "a-run",
        "command": "sync",
        "exit_code": 1,
        "seconds": 12.346,
        "counts": {
            "uploaded": 1,
            "replaced": 0,
            "updated": 0,
            "unchanged": 0,
            "refused": 1,
            "failed": 0,
            "planned": 0,
            "busy": 0,
        },
        "images": [
            {
                "name": "web",
                "descriptor": "https://images.example.org/web.qcow2",
                "list": "images.list",
                "line": 4,
                "decision": "upload",
                "reason": "Glance has nothing of the kind",
                "outcome": "uploaded",
                "image_id": "an-id",
                "backup_id": None,
                "backup_path": None,
                "kept_path": None,
                "size_bytes": 10,
                "disk_format": "qcow2",
                "digests": {"sha256": "aa", "sha512": "bb"},
                "matched": ["sha256 of the image"],
                "integrity": "published",
                "error": None,
                "seconds": 1.235,
            },
            {
                "name": "",
                "descriptor": "an-id-of-the-marketplace",
                "list": None,
                "line": None,
                "decision": "refuse",
                "reason": "downgrade",
                "outcome": "refused",
                "image_id": None,
                "backup_id": None,
                "backup_path": None,
                "kept_path": None,
                "size_bytes": None,
                "disk_format": None,
                "digests": {},
                "matched": [],
                "integrity": None,
                "error": {
                    "kind": "downgrade",
                    "message": "version 1 is older than 2",
                    "hint": "remove the newer one",
                },
                "seconds": 0.0,
            },
        ],
    }


def test_a_run_that_ended_early_says_why_and_has_no_images() -> None:
    run = RunResult("r", "sync", exit_code=ExitCode.CLOUD, error=ErrorReport("login-refused", "no"))
    document = as_document(run)
    assert document["error"] == {"kind": "login-refused", "message": "no", "hint": None}
    assert (document["exit_code"], document["images"]) == (3, [])
    assert set(document["counts"].values()) == {0}


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((), 0),
        ((Outcome.UPLOADED, Outcome.REPLACED, Outcome.UPDATED, Outcome.UNCHANGED), 0),
        ((Outcome.PLANNED,), 0),
        ((Outcome.UNCHANGED, Outcome.FAILED), 1),
        ((Outcome.REFUSED, Outcome.UPLOADED), 1),
        ((Outcome.BUSY, Outcome.UNCHANGED), 4),
        ((Outcome.BUSY, Outcome.FAILED), 1),
        ((Outcome.REFUSED, Outcome.BUSY), 1),
    ],
)
def test_the_exit_code_tells_whether_glance_holds_everything(
    outcomes: tuple[Outcome, ...], code: int
) -> None:
    assert exit_code(having(*outcomes)) == code


def test_every_outcome_is_counted() -> None:
    counts = RunResult("r", "sync", tuple(having(*Outcome, Outcome.FAILED))).counts
    assert counts == {outcome.value: 1 for outcome in Outcome} | {"failed": 2}


def test_a_row_of_the_table_names_the_image_and_says_why() -> None:
    document = as_document(RunResult("r", "sync", (PLAIN, FAILED)))
    assert table_rows(document) == [
        ("web", "uploaded", "an-id", "Glance has nothing of the kind"),
        ("an-id-of-the-marketplace", "refused", "", "version 1 is older than 2"),
    ]
