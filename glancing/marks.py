"""What glancing writes on its images in Glance, and how it reads it back.

One tag and a handful of properties are the only memory that glancing has: what an image is
(``glancing_identity``, ``mpid``, ``version``), which bytes it holds (``glancing_published``,
``glancing_image``), where they came from and how well they were verified, and which part the image
plays (``glancing_state``). The README lists them for users.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TypeVar

from glancing.model import (
    ALGORITHMS,
    PROPERTY_PREFIX,
    TAG,
    Attributes,
    Compression,
    Digest,
    ImageChange,
    Integrity,
    Location,
    Measured,
    NewImage,
    Spec,
    State,
    StoredImage,
    Validators,
)

# Properties that tell something of the bytes or of one record; a replacement must not inherit them.
_OF_THE_BYTES = (
    "base_image_ref",
    "block_device_mapping",
    "boot_roles",
    "direct_url",
    "image_location",
    "image_state",
    "image_type",
    "img_signature",
    "instance_uuid",
    "locations",
    "os_glance_",
    "owner_id",
    "owner_project_name",
    "owner_specified.openstack.",
    "owner_user_name",
    "root_device_name",
    "stores",
    "user_id",
)
T = TypeVar("T")
GIB = 1024**3
_RECORDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:glancing:records")
_SEED_MARKS = ("mpid", "version")
_MAX_VALUE_CHARACTERS = 65_535 // 4  # Glance keeps a TEXT column, of bytes on some databases


def format_digests(digests: Iterable[Digest]) -> str:
    """``sha256:…,sha512:…``, as the digest properties hold them."""
    return ",".join(str(digest) for digest in sorted(digests))


def parse_digests(text: str | None) -> tuple[Digest, ...]:
    """Read a digest property; parts that anything else wrote there are passed over."""
    found = []
    for part in (text or "").split(","):
        algorithm, _, value = part.strip().partition(":")
        if algorithm in ALGORITHMS and value:
            found.append(Digest(algorithm, value.lower()))
    return tuple(found)


def kept_published(stored: StoredImage) -> tuple[Digest, ...]:
    """Digests of the published file from which the stored image was made."""
    return parse_digests(stored.properties.get("glancing_published"))


def kept_image(stored: StoredImage) -> tuple[Digest, ...]:
    """Digests of the image that were computed when it was uploaded."""
    return parse_digests(stored.properties.get("glancing_image"))


def wanted_properties(spec: Spec) -> dict[str, str]:
    """The properties that a spec asks for, whatever its bytes turn out to be.

    Our marks are ours to set: what a list says under such a name is passed over.
    """
    theirs = {k: v for k, v in spec.properties.items() if not k.startswith(PROPERTY_PREFIX)}
    ours = {
        "glancing_identity": spec.identity,
        "glancing_name": spec.name,
        "glancing_source": str(_source_of(spec)),
        "glancing_list": spec.list_mark,
        "mpid": spec.mpid,
        "version": spec.version,
    }
    return {**theirs, **{key: value for key, value in ours.items() if value}}


def measured_properties(
    measured: Measured, validators: Validators, integrity: str, run_id: str
) -> dict[str, str]:
    """The properties that only the bytes can give."""
    plain = measured.compression is Compression.NONE
    published = {*measured.published, *(measured.image if plain else ())}
    found = {
        "glancing_published": format_digests(published),
        "glancing_image": format_digests(measured.image),
        "glancing_validators": str(validators)[:_MAX_VALUE_CHARACTERS],
        "glancing_integrity": integrity,
        "glancing_run": run_id,
    }
    return {key: value for key, value in found.items() if value}


def dated_properties(spec: Spec, validators: Validators) -> dict[str, str]:
    """The day of the file for a version, where an image has none of its own.

    What its list says goes before it. As openstack-image-manager has it.
    """
    if not spec.dated:
        return {}
    day = _day(validators.last_modified)
    found = {"internal_version": day.strftime("%Y%m%d") if day else "latest"}
    if day:
        found["image_build_date"] = day.isoformat()
    return {key: value for key, value in found.items() if key not in spec.properties}


def _day(last_modified: str | None) -> date | None:
    try:
        return parsedate_to_datetime(last_modified).date() if last_modified else None
    except ValueError:
        return None


def incoming_image(
    spec: Spec, disk_format: str, old: StoredImage | None, run_id: str, deadline: datetime
) -> NewImage:
    """The record that is filled: a temporary name, private and hidden, with its state said."""
    properties = {
        **inherited_properties(old),
        **wanted_properties(spec),
        "glancing_state": State.INCOMING.value,
        "glancing_run": run_id,
        "glancing_deadline": deadline.isoformat(timespec="seconds"),
    }
    return NewImage(
        name=temporary_name(spec.name),
        disk_format=disk_format,
        # Glance wants the parts of an Amazon image in a container of the same name.
        container_format=disk_format if disk_format in ("aki", "ami", "ari") else "bare",
        tags=(old.tags if old else frozenset()) | spec.attributes.tags | {TAG},
        properties=MappingProxyType(properties),
        min_disk_gib=_first(spec.attributes.min_disk_gib, old.min_disk_gib if old else 0),
        min_ram_mib=_first(spec.attributes.min_ram_mib, old.min_ram_mib if old else 0),
    )


def publish_change(
    spec: Spec,
    old: StoredImage | None,
    measured_marks: Mapping[str, str],
    disk_size_bytes: int = 0,
) -> ImageChange:
    """The one PATCH that makes an incoming image the current one.

    ``disk_size_bytes`` is the size of the disk inside, on less than which nothing can boot.
    """
    asked = spec.attributes
    return ImageChange(
        name=spec.name,
        visibility=asked.visibility or (old.visibility if old else "shared"),
        hidden=asked.hidden or False,
        protected=_first(asked.protected, old.protected if old else None),
        min_disk_gib=_min_disk_gib(asked, disk_size_bytes),
        properties=MappingProxyType({**measured_marks, "glancing_state": State.CURRENT.value}),
        remove=frozenset({"glancing_deadline"}),
    )


def retire_change(stored: StoredImage, backup_name: str) -> ImageChange:
    """The one PATCH that makes the previous image a backup."""
    name = stored.properties.get("glancing_name") or stored.name
    return ImageChange(
        name=backup_name,
        hidden=True,
        properties=MappingProxyType(
            {"glancing_state": State.BACKUP.value, "glancing_name": name},
        ),
    )


def update_change(spec: Spec, stored: StoredImage) -> ImageChange | None:
    """What has to change on a stored image that has the right bytes; None when nothing has to."""
    wanted = {**wanted_properties(spec), "glancing_state": State.CURRENT.value}
    changed = {key: value for key, value in wanted.items() if stored.properties.get(key) != value}
    asked, tags = spec.attributes, stored.tags | spec.attributes.tags | {TAG}
    change = ImageChange(
        name=_unlike(spec.name, stored.name),
        visibility=_unlike(asked.visibility, stored.visibility),
        hidden=_unlike(asked.hidden, stored.hidden),
        protected=_unlike(asked.protected, stored.protected),
        min_disk_gib=_unlike(_kept_min_disk_gib(asked, stored), stored.min_disk_gib),
        min_ram_mib=_unlike(asked.min_ram_mib, stored.min_ram_mib),
        tags=_unlike(tags, stored.tags),
        properties=MappingProxyType(changed),
    )
    return None if change == ImageChange() else change


def _unlike(wanted: T | None, stored: T) -> T | None:
    """What has to be set; None where nothing is asked or it is so already."""
    return None if wanted == stored else wanted


def _first(asked: T | None, otherwise: T) -> T:
    return otherwise if asked is None else asked


def _min_disk_gib(asked: Attributes, disk_size_bytes: int) -> int | None:
    """What is asked, or what the disk inside needs where that is more; None when nobody asks."""
    if asked.min_disk_gib is None:
        return None
    return max(asked.min_disk_gib, -(-disk_size_bytes // GIB))


def _kept_min_disk_gib(asked: Attributes, stored: StoredImage) -> int | None:
    """As ``_min_disk_gib``; it is not lowered where Glance does not know the disk inside."""
    if stored.virtual_size_bytes is None:
        return _min_disk_gib(asked, stored.min_disk_gib * GIB)
    return _min_disk_gib(asked, stored.virtual_size_bytes)


def confirm_change(
    spec: Spec, stored: StoredImage, measured_marks: Mapping[str, str]
) -> ImageChange | None:
    """What has to change on an image whose bytes turned out to be the wanted ones.

    None when nothing was learnt. How well the bytes are proven is only ever raised, and the run
    that made the image stays the one that made it.
    """
    wanted = update_change(spec, stored) or ImageChange()
    proven = _worth(measured_marks) > _worth(stored.properties)
    passed_over = {"glancing_run"} | (set() if proven else {"glancing_integrity"})
    learnt = {
        key: value
        for key, value in measured_marks.items()
        if key not in passed_over and stored.properties.get(key) != value
    }
    change = replace(wanted, properties=MappingProxyType({**wanted.properties, **learnt}))
    return None if change == ImageChange() else change


def _worth(properties: Mapping[str, str]) -> int:
    """How much the integrity that is noted there proves."""
    rising = (Integrity.NONE, Integrity.TRANSPORT, Integrity.PUBLISHED)
    noted = properties.get("glancing_integrity")
    return rising.index(Integrity(noted)) if noted in rising else 0


def inherited_properties(old: StoredImage | None) -> dict[str, str]:
    """What a replacement takes over: all that is neither ours nor said of the old bytes."""
    if old is None:
        return {}
    return {key: value for key, value in old.properties.items() if _is_inherited(key)}


def record_id(project_id: str, spec: Spec, validators: Validators, attempt: int) -> str:
    """The id of the record for an attempt at these bytes, the same for every run that tries.

    Glance never gives an id twice, not even after its image was deleted, so each attempt has one of
    its own.
    """
    content = spec.version or format_digests(spec.expected.digests) or str(validators)
    parts = (project_id, spec.name, spec.identity, content, str(attempt))
    return str(uuid.uuid5(_RECORDS, "\0".join(parts)))


def temporary_name(name: str) -> str:
    """The name of an image while it is filled, within Glance's limit of 255 characters."""
    return f"{name[:240]}.incoming"


def backup_name(name: str) -> str:
    """The name of the previous version (the seed's ``NAME_old``), within 255 characters."""
    return f"{name[:250]}_old"


def older_backup_name(name: str, now: datetime) -> str:
    """The name of a backup from before the previous one: ``NAME_old_<UTC time>``."""
    return f"{name[:220]}_old_{now:%Y%m%dT%H%M%S%fZ}"


def _is_inherited(key: str) -> bool:
    ours = key.startswith(PROPERTY_PREFIX) or key in _SEED_MARKS
    return not ours and not key.startswith(_OF_THE_BYTES)


def _source_of(spec: Spec) -> Location:
    return spec.sources[0]
