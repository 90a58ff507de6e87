"""Turns what became of the images into the result object and the exit code.

The result is part of the interface (schema version 1): fields are added, their meaning never
changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from glancing.errors import ExitCode
from glancing.model import ErrorReport, ImageResult, Outcome

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a whole run did; ``error`` is set where it ended before any image was looked at."""

    run_id: str
    command: str
    images: tuple[ImageResult, ...] = ()
    seconds: float = 0.0
    exit_code: int = ExitCode.OK
    error: ErrorReport | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many images had each outcome; every outcome is named, also those with none."""
        found = Counter(image.outcome for image in self.images)
        return {outcome.value: found[outcome] for outcome in Outcome}


def exit_code(images: Sequence[ImageResult]) -> ExitCode:
    """The code of a run that reached its images."""
    outcomes = {image.outcome for image in images}
    if outcomes & {Outcome.FAILED, Outcome.REFUSED}:
        return ExitCode.IMAGES_FAILED
    return ExitCode.BUSY if Outcome.BUSY in outcomes else ExitCode.OK


def as_document(result: RunResult) -> dict[str, Any]:
    """The result object, ready for JSON."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": result.run_id,
        "command": result.command,
        "exit_code": int(result.exit_code),
        "seconds": round(result.seconds, 3),
        "counts": result.counts,
        "images": [_image(image) for image in result.images],
    }
    if result.error is not None:
        document["error"] = asdict(result.error)
    return document


def _image(image: ImageResult) -> dict[str, Any]:
    return {
        "name": image.name,
        "descriptor": image.descriptor,
        "list": image.origin.list_name,
        "line": image.origin.line or None,
        "decision": image.decision,
        "reason": image.reason,
        "outcome": image.outcome.value,
        "image_id": image.image_id,
        "backup_id": image.backup_id,
        "backup_path": image.backup_path,
        "kept_path": image.kept_path,
        "size_bytes": image.size_bytes,
        "disk_format": image.disk_format,
        "digests": {digest.algorithm: digest.value for digest in image.digests},
        "matched": list(image.matched),
        "mismatched": list(image.mismatched),
        "integrity": image.integrity.value if image.integrity else None,
        "error": asdict(image.error) if image.error else None,
        "seconds": round(image.seconds, 3),
    }


def table_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of the table for a terminal: name, outcome, image id, and why."""
    return [
        (
            image["name"] or image["descriptor"],
            image["outcome"],
            image["image_id"] or "",
            image["error"]["message"] if image["error"] else image["reason"],
        )
        for image in document["images"]
    ]
