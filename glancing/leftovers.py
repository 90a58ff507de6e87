"""Tells what other runs are at from what they left behind.

An incoming image is either being filled right now, by a run that is alive, or was left by one that
was killed. Nobody can renew a sign of life on it, because Glance undoes changes made during an
upload; so a run promises its own limits when it creates the record, and past them it is dead.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from glancing.model import State, StoredImage

QUIET_AFTER = timedelta(seconds=60)


class Life(Enum):
    """Whether a run may still be at an incoming image; YOUNG is too early to tell."""

    ALIVE = "alive"
    YOUNG = "young"
    DEAD = "dead"


def is_incoming(stored: StoredImage) -> bool:
    """Whether it is an image of ours that is being filled, or was."""
    return stored.marked and stored.state == State.INCOMING


def life_of(stored: StoredImage, glance_now: datetime) -> Life:
    """Judge an incoming image by Glance's own clock.

    While data is sent (``saving``) the deadline holds that its run set. Every other state is a step
    of seconds, so after a minute without a change nobody is at it.
    """
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


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
