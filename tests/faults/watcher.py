"""Watches, from outside and all the time, what names in Glance stand for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.sandbox.identity import Login
from tests.shelf import Shelf


@dataclass(slots=True)
class Sighting:
    """What was seen under one name: digests of active visible images, and a time without any."""

    digests: set[str] = field(default_factory=set)
    was_missing: bool = False


class Watcher:
    """Lists the images that users see, again and again, until the end of its ``with`` block.

    Afterwards ``gaps`` has the names that once had an active image and then, at some instant, had
    none (promise P2), and ``seen`` the digests of all images that were ever active under a name
    (P1). One listing is one query of Glance's database.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._login = Login(shelf.sandbox.member)
        self._ended = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._error: Exception | None = None
        self._sightings: dict[str, Sighting] = {}
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._looked.wait(30), self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._login.__exit__(kind, error, trace)
        assert self._error is None, self._error

    @property
    def gaps(self) -> list[str]:
        """Names that were without an image at some instant."""
        return sorted(name for name, found in self._sightings.items() if found.was_missing)

    @property
    def seen(self) -> Mapping[str, set[str]]:
        """By name, the sha512 of every image that was active under it."""
        return {name: found.digests for name, found in self._sightings.items()}

    def _watch(self) -> None:
        try:
            while not self._ended.is_set():
                self._look()
            self._look()
        except Exception as error:  # noqa: BLE001 - told where the watching ends
            self._error = error
        self._looked.set()

    def _look(self) -> None:
        query = {"owner": self._shelf.project_id, "limit": "1000", "status": "active"}
        url = f"{self._shelf.sandbox.image_url}/v2/images"
        active: dict[str, set[str]] = {}
        for image in self._login.call("GET", url, params=query).json()["images"]:
            active.setdefault(image["name"], set()).add(image["os_hash_value"])
        for name in self._sightings.keys() - active.keys():
            self._sightings[name].was_missing = True
        for name, digests in active.items():
            self._sightings.setdefault(name, Sighting()).digests.update(digests)
        self.looks += 1
        self._looked.set()
