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
from datetime import datetime
from types import MappingProxyType

from glancing.model import (
    ALGORITHMS,
    PROPERTY_PREFIX,
    TAG,
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
        tags=(old.tags if old else frozenset()) | {TAG},
        properties=MappingProxyType(properties),
        min_disk_gib=old.min_disk_gib if old else 0,
        min_ram_mib=old.min_ram_mib if old else 0,
    )


def publish_change(
    spec: Spec, old: StoredImage | None, measured_marks: Mapping[str, str]
) -> ImageChange:
    """The one PATCH that makes an incoming image the current one."""
    return ImageChange(
        name=spec.name,
        visibility=old.visibility if old else "shared",
        hidden=False,
        protected=old.protected if old else None,
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
    name = spec.name if stored.name != spec.name else None
    tags = stored.tags | {TAG} if TAG not in stored.tags else None
    if not changed and name is None and tags is None:
        return None
    return ImageChange(name=name, tags=tags, properties=MappingProxyType(changed))


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
