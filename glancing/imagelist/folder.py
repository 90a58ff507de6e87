"""A folder as an image list: its images and their checksum files, or definitions in YAML.

For sites without a way out. An image that no checksum file names is refused: in a folder that
somebody filled, nothing to check against is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glancing.errors import ImageListError
from glancing.imagelist._json import MAX_JSON_BYTES
from glancing.imagelist.descriptor import parse_descriptor
from glancing.imagelist.plain import need_of_sums
from glancing.model import (
    Keys,
    ListContext,
    LocalPath,
    Need,
    NeedKind,
    Parsed,
    Problem,
    Severity,
    Spec,
)

_IMAGES = re.compile(
    r"[^.].*\.(img|raw|qcow2|vmdk|vhd|vhdx|vdi|iso|ova)(\.tar)?(\.(gz|bz2|xz|zst|zip))?",
    re.IGNORECASE,
)
_DEFINITIONS = re.compile(r"[^.].*\.ya?ml", re.IGNORECASE)
_SUMS = re.compile(r"(.*[-_.])?((md5|sha\d+)sums?|checksums?)([-_.](txt|asc))?", re.IGNORECASE)
_SIDECARS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha256sum", "sha512sum")


def parse(names: Sequence[str], context: ListContext) -> Parsed:
    """What the files of the folder ``context.location`` stand for.

    Definitions where there are any, else images. An image without a checksum file is a problem;
    ImageListError when there is neither.
    """
    if context.folder is None:
        raise ValueError("only folders of this machine are read")
    definitions = [name for name in names if _DEFINITIONS.fullmatch(name)]
    if definitions:
        return Parsed(needs=tuple(_definition(name, context) for name in definitions))
    images = [name for name in names if _IMAGES.fullmatch(name)]
    if not images:
        raise ImageListError(
            f"the folder {context.location} has neither images nor definitions",
            hint="images are told by their suffix: .img, .qcow2, .raw, .vmdk, .iso, .raw.xz, …",
        )
    return _images(images, [name for name in names if _SUMS.fullmatch(name)], set(names), context)


def _definition(name: str, context: ListContext) -> Need:
    location = LocalPath(_folder(context) / name)
    path = (*context.included_by, str(context.location))
    origin = replace(context.origin, list_name=str(location), depth=len(path))
    inner = replace(context, location=location, origin=origin, included_by=path)
    return Need(NeedKind.LIST, location, MAX_JSON_BYTES, name, origin, trusted=True, context=inner)


def _images(
    images: Sequence[str], sums: Sequence[str], names: set[str], context: ListContext
) -> Parsed:
    needs: list[Need] = []
    problems: list[Problem] = []
    for number, name in enumerate(images, start=1):
        origin = replace(context.origin, line=number)
        own = [f"{name}.{suffix}" for suffix in _SIDECARS if f"{name}.{suffix}" in names]
        files = tuple(LocalPath(_folder(context) / file) for file in own or sums)
        keys = Keys(sums_files=files, in_any_file=not own)
        try:
            needs.append(_image(name, keys, replace(context, origin=origin)))
        except ImageListError as error:
            problems.append(
                Problem(
                    Severity.ERROR, "list.entry_refused", error.message, origin, name, error.hint
                )
            )
    return Parsed(needs=tuple(needs), problems=tuple(problems))


def _image(name: str, keys: Keys, context: ListContext) -> Need:
    if not keys.sums_files:
        raise ImageListError(
            f"no checksum file stands beside {name}",
            hint=f"put SHA256SUMS or {name}.sha256 into the folder",
        )
    # As a path, since a name of 27 characters would be taken for a marketplace ID.
    spec = parse_descriptor(
        str(_folder(context) / name),
        marketplace=context.marketplace,
        base=context.folder,
        trusted=True,
        origin=context.origin,
        naming=context.naming,
    )
    if not isinstance(spec, Spec):
        raise ImageListError(f"{name} is no image")
    return need_of_sums(spec, keys)


def _folder(context: ListContext) -> Path:
    """The folder itself, where a list's ``folder`` is the one that it lies in."""
    if not isinstance(context.location, LocalPath):
        raise ValueError("only folders of this machine are read")
    return context.location.path
