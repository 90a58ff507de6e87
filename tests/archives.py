"""Archives of disks, good ones and traps, made by ``tarfile``."""

from __future__ import annotations

import io
import tarfile
from hashlib import new

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: object) -> Member:
    """One member; ``fields`` are those of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*members: Member, form: int = tarfile.USTAR_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def ovf(*files: str, others: tuple[str, ...] = (), attributes: str = "") -> bytes:
    """A descriptor with a disk for each file."""
    named = [f'<File ovf:id="f{n}" ovf:href="{f}" {attributes}/>' for n, f in enumerate(files)]
    named += [f'<File ovf:id="o{n}" ovf:href="{f}"/>' for n, f in enumerate(others)]
    disks = [f'<Disk ovf:diskId="d{n}" ovf:fileRef="f{n}"/>' for n in range(len(files))]
    return (
        '<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" '
        'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">'
        f"<References>{''.join(named)}</References>"
        f"<DiskSection>{''.join(disks)}</DiskSection></Envelope>"
    ).encode()


def manifest(algorithm: str, **files: bytes) -> bytes:
    """A manifest; two underscores in a name stand for a dot."""
    lines = (
        f"{algorithm.upper()}({name.replace('__', '.')})= {new(algorithm, data).hexdigest()}\n"
        for name, data in files.items()
    )
    return "".join(lines).encode()
