"""Looks into Glance without glancing's help: shows what is there and finds what differs.

All images of the project are listed, hidden and half-made ones too, so that nothing that was left
behind goes unnoticed. Their bytes are downloaded and compared with what was published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.sandbox import Sandbox
from tests.sandbox.identity import Login

Record = Mapping[str, Any]
_COLUMNS = ("name", "status", "visibility", "hidden", "version", "size", "id")


class DemoError(Exception):
    """Something is not as it should be; the message says what."""


@dataclass(frozen=True, slots=True)
class Held:
    """An image that Glance should hold, with its bytes."""

    name: str
    disk_format: str
    data: bytes
    version: str | None = None
    hidden: bool = False

    def facts(self, hash_algorithm: str) -> dict[str, Any]:
        """What Glance's record of the image should say."""
        return {
            "status": "active",
            "visibility": "shared",
            "os_hidden": self.hidden,
            "version": self.version,
            "disk_format": self.disk_format,
            "container_format": "bare",
            "size": len(self.data),
            "checksum": hashlib.md5(self.data).hexdigest(),
            "os_hash_value": hashlib.new(hash_algorithm, self.data).hexdigest(),
        }


class Watcher:
    """Reads Glance by its API as the demo's own user."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._images_url = f"{sandbox.image_url}/v2/images"

    def records(self) -> list[Record]:
        """All images of the project, by name."""
        with Login(self._sandbox.member) as login:
            found = [*self._listed(login, hidden=False), *self._listed(login, hidden=True)]
        return sorted(found, key=lambda record: (str(record["name"]), record["id"]))

    def _listed(self, login: Login, *, hidden: bool) -> Iterator[Record]:
        query = {
            "owner": login.token["project"]["id"],
            "os_hidden": str(hidden).lower(),
            "limit": "1000",
        }
        yield from login.call("GET", self._images_url, params=query).json()["images"]

    def delete(self, image_id: str) -> None:
        """Take an image away behind glancing's back."""
        with Login(self._sandbox.member) as login:
            login.call("DELETE", f"{self._images_url}/{image_id}")

    def changes_asked_for(self) -> int:
        """How many requests so far were to change something in Glance."""
        requests = self._sandbox.glance_requests()
        return sum(request.method not in ("GET", "HEAD") for request in requests)

    def differences(self, wanted: Sequence[Held]) -> list[str]:
        """What is not as it should be, in words; nothing when Glance holds just what is wanted."""
        records = self.records()
        names = {held.name for held in wanted}
        strangers = (record for record in records if record["name"] not in names)
        found = [f"unexpected image {_told(record)}" for record in strangers]
        with Login(self._sandbox.member) as login:
            for held in wanted:
                bearers = [record for record in records if record["name"] == held.name]
                found += self._differences(login, held, bearers)
        return found

    def _differences(self, login: Login, held: Held, bearers: Sequence[Record]) -> Iterator[str]:
        if len(bearers) != 1:
            told = ", ".join(map(_told, bearers)) or "none"
            yield f"one image {held.name} should be there, found: {told}"
            return
        record = bearers[0]
        for key, expected in held.facts(record["os_hash_algo"] or "sha512").items():
            if record.get(key) != expected:
                yield f"{key} of {held.name} is {record.get(key)}, should be {expected}"
        if record["status"] == "active":
            url = f"{self._images_url}/{record['id']}/file"
            if login.call("GET", url).content != held.data:
                yield f"{held.name} comes back with other bytes than were published"


def table(records: Iterable[Record]) -> list[str]:
    """The lines of a table of images."""
    rows = [_COLUMNS, *map(_row, records)]
    if len(rows) == 1:
        return ["(no image)"]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _row(record: Record) -> tuple[str, ...]:
    return (
        str(record["name"]),
        record["status"],
        record["visibility"],
        "yes" if record["os_hidden"] else "no",
        record.get("version", "-"),
        str(record["size"] or "-"),
        record["id"][:8],
    )


def _told(record: Record) -> str:
    state = record.get("glancing_state", "unmarked")
    return f"{record['name']} ({record['status']}, {state}, {record['id'][:8]})"
