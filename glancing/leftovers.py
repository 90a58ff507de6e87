"""Tells what other runs are at from what they left behind.

An incoming image is either being filled right now, by a run that is alive, or was left by one that
was killed. Where both runs share a work directory, the lock there tells. Elsewhere nobody can renew
a sign of life on it, because Glance undoes changes made during an upload; so a run promises its own
limits when it creates the record, and past them it is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum

from glancing.errors import GlancingError
from glancing.model import Events, ImageStore, State, StoredImage

IsAlive = Callable[[str], bool | None]
"""Whether the run of this id is alive; None when nobody knows."""

Target = tuple[str, str]
"""What two runs may not do at once: an identity, under a name."""

QUIET_AFTER = timedelta(seconds=60)


class Life(Enum):
    """Whether a run may still be at an incoming image; YOUNG is too early to tell."""

    ALIVE = "alive"
    YOUNG = "young"
    DEAD = "dead"


def is_incoming(stored: StoredImage) -> bool:
    """Whether it is an image of ours that is being filled, or was."""
    return stored.marked and stored.state == State.INCOMING


def life_of(stored: StoredImage, glance_now: datetime, run_is_alive: IsAlive) -> Life:
    """Judge an incoming image by its run's lock where there is one, else by Glance's own clock.

    While data is sent (``saving``) the deadline holds that its run set. Every other state is a step
    of seconds, so after a minute without a change nobody is at it.
    """
    alive = run_is_alive(stored.properties.get("glancing_run", ""))
    if alive is not None:
        return Life.ALIVE if alive else Life.DEAD
    if stored.status == "saving":
        deadline = _time(stored.properties.get("glancing_deadline"))
        return Life.ALIVE if deadline and glance_now < deadline else Life.DEAD
    changed_at = stored.updated_at or stored.created_at
    if changed_at and glance_now - changed_at < QUIET_AFTER:
        return Life.YOUNG
    return Life.DEAD


def quiet_in_s(stored: StoredImage, glance_now: datetime) -> float:
    """Seconds until a young image is old enough to be judged."""
    changed_at = stored.updated_at or stored.created_at or glance_now
    return max(0.0, (changed_at + QUIET_AFTER - glance_now).total_seconds())


def remove_leftover(store: ImageStore, events: Events, leftover: StoredImage) -> bool:
    """Delete what a dead run left; True when nothing of it is left over any more.

    Another run may have published it since it was listed, so it is looked at once more.
    """
    try:
        now = store.get(leftover.id)
        if now is not None and is_incoming(now):
            store.delete(now.id)
            events.warning("image.leftover_removed", image_id=now.id, name=now.name)
    except GlancingError as error:
        events.warning("image.incoming_left", image_id=leftover.id, reason=error.message)
        return False
    return True


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
