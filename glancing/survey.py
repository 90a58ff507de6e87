"""Looks at what Glance has, and clears away what dead runs left, before anything is decided.

Only incoming images are ever deleted: they are ours, private and hidden, and nobody was to boot
them. Those that a living run is filling are left alone, and this run calls their images busy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from glancing.errors import InterruptedRunError
from glancing.intake import Tools
from glancing.leftovers import Life, Target, is_incoming, life_of, quiet_in_s, remove_leftover
from glancing.model import ImageStore, StoredImage

_LOOKS = 3
_LOOKING_S = 5.0


@dataclass(frozen=True, slots=True)
class Survey:
    """The inventory to decide on, and what other runs are at or have left.

    ``busy`` has what another run is at. ``filled`` are images that a dead run filled and did not
    publish: they may be what is wanted. ``cleared`` says that nothing else is left of dead runs.
    """

    inventory: tuple[StoredImage, ...]
    busy: frozenset[Target] = frozenset()
    filled: Mapping[Target, StoredImage] = field(default_factory=lambda: MappingProxyType({}))
    cleared: bool = False


def look(store: ImageStore, tools: Tools) -> Survey:
    """Read the inventory and change nothing; raises CloudError unless all of it could be read."""
    inventory = store.inventory()
    living = _incoming(store, tools, inventory, Life.ALIVE)
    return Survey(inventory, _targets(living))


def clear(
    store: ImageStore,
    tools: Tools,
    wanted: Collection[Target],
    fixed_ids: Collection[str] = (),
) -> Survey:
    """Read the inventory, and delete the incoming images of dead runs that nobody can use.

    Those of ``fixed_ids`` stay, because Glance never gives an id twice.

    Where it is too early to tell whether the run at a wanted image is dead, wait until it is not
    (at most a minute, and once more if something moved). Raises as ``look`` does.
    """
    for _ in range(_LOOKS):
        inventory = store.inventory()
        dead = _incoming(store, tools, inventory, Life.DEAD)
        filled = {target_of(each): each for each in dead if each.status == "active"}
        filled = {target: each for target, each in filled.items() if target in wanted}
        kept = {*fixed_ids, *(each.id for each in filled.values())}
        unusable = [each for each in dead if each.id not in kept]
        removed = {each.id for each in unusable if remove_leftover(store, tools.events, each)}
        young = _incoming(store, tools, inventory, Life.YOUNG)
        awaited = [stored for stored in young if target_of(stored) in wanted]
        if not awaited:
            break
        _wait(store, tools, awaited)
    living = [*awaited, *_incoming(store, tools, inventory, Life.ALIVE)]
    left = tuple(stored for stored in inventory if stored.id not in removed)
    return Survey(left, _targets(living), filled, cleared=len(removed) == len(unusable))


def _wait(store: ImageStore, tools: Tools, young: Sequence[StoredImage]) -> None:
    """Wait until it can be told whether the runs at these images are dead, or one of them moves."""
    wait_s = max(quiet_in_s(stored, store.now()) for stored in young)
    names = [stored.name for stored in young]
    tools.events.info("image.awaited", names=names, wait_s=round(wait_s, 1))
    left_s = wait_s + 1
    while left_s > 0:
        if tools.stop.wait(min(left_s, _LOOKING_S)):
            raise InterruptedRunError("the run was told to stop")
        left_s -= _LOOKING_S
        if any(_has_moved(store, stored) for stored in young):
            return


def _has_moved(store: ImageStore, young: StoredImage) -> bool:
    """Whether somebody was at an image since it was listed: then its run is alive, or done."""
    now = store.get(young.id)
    return now is None or not is_incoming(now) or now.status != young.status


def _incoming(
    store: ImageStore, tools: Tools, inventory: Iterable[StoredImage], life: Life
) -> list[StoredImage]:
    now, is_alive = store.now(), tools.workspace.is_alive
    incoming = (stored for stored in inventory if is_incoming(stored))
    return [stored for stored in incoming if life_of(stored, now, is_alive) is life]


def target_of(stored: StoredImage) -> Target:
    """What an incoming image is going to be."""
    return (stored.identity or "", stored.properties.get("glancing_name", ""))


def _targets(images: Iterable[StoredImage]) -> frozenset[Target]:
    return frozenset(target_of(stored) for stored in images)
