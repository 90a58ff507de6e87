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


# --- other forms of the same result ---------------------------------------------------------------

_TERMINATION_BYTES = 4096  # Kubernetes keeps no more of a container's termination message


def last_words(document: Mapping[str, Any]) -> str:
    """The result in a few lines, for ``kubectl describe``: the code, the counts, what failed."""
    counts = ", ".join(f"{count} {name}" for name, count in _nonzero(document))
    lines = [f"glancing {document['command']}: exit code {document['exit_code']}; {counts}"]
    if document.get("error"):
        lines.append(_sentence(document["error"]))
    lines += [
        f"{image['name'] or image['descriptor']}: {_sentence(image['error'])}"
        for image in document.get("images", ())
        if image["error"]
    ]
    return _cut("\n".join(lines) + "\n")


def markdown(document: Mapping[str, Any]) -> str:
    """The result as a Markdown table, for the summary page of a CI pipeline."""
    counts = ", ".join(f"{count} {name}" for name, count in _nonzero(document)) or "no images"
    lines = [f"### glancing {document['command']}: {counts}", ""]
    if document.get("error"):
        lines += [f"**{_cell(_sentence(document['error']))}**", ""]
    rows = table_rows(document) if document.get("images") else []
    if rows:
        lines += ["| image | decision | outcome | id | why |", "|---|---|---|---|---|"]
        for image, (name, outcome, image_id, why) in zip(document["images"], rows, strict=True):
            cells = (name, image["decision"], outcome, image_id, why)
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n\n"


def github_annotations(document: Mapping[str, Any]) -> list[str]:
    """GitHub's workflow commands, one for each image that was refused or failed."""
    return [
        f"::error title={_property(image['name'] or image['descriptor'])}::"
        f"{_data(_sentence(image['error']))}"
        for image in document.get("images", ())
        if image["error"]
    ]


def _nonzero(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in document.get("counts", {}).items() if count]


def _sentence(error: Mapping[str, Any]) -> str:
    hint = f" ({error['hint']})" if error["hint"] else ""
    return f"{error['kind']}: {error['message']}{hint}"


def _cut(text: str) -> str:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= _TERMINATION_BYTES:
        return data.decode()
    return data[: _TERMINATION_BYTES - 8].decode("utf-8", "ignore") + "\n…\n"


def _cell(text: str) -> str:
    """A table's cell: nothing in it may end the cell, the row or begin mark-up."""
    plain = " ".join(str(text).split())
    for mark in "\\|<>`*_[]":
        plain = plain.replace(mark, f"\\{mark}" if mark not in "<>" else f"&#{ord(mark)};")
    return plain


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
