"""Builders of tar archives and of OVAs, which are such archives with a descriptor."""

from __future__ import annotations

import hashlib
import io
import tarfile

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: object) -> Member:
    """One member; ``fields`` are those of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*members: Member, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A whole archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def ovf(*disks: str, attributes: str = "", others: str = "", doctype: str = "") -> bytes:
    """The descriptor of an OVA with these disks (DSP0243, sections 7 and 9)."""
    files = "".join(
        f'<File ovf:id="f{number}" ovf:href="{name}" {attributes}/>'
        for number, name in enumerate(disks)
    )
    sections = "".join(
        f'<Disk ovf:diskId="d{number}" ovf:fileRef="f{number}"/>' for number in range(len(disks))
    )
    return (
        f'<?xml version="1.0"?>{doctype}<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" '
        'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">'
        f"<References>{files}{others}</References><DiskSection>{sections}</DiskSection></Envelope>"
    ).encode()


def manifest(*files: Member, algorithm: str = "sha256") -> Member:
    """The manifest of an OVA."""
    lines = [
        f"{algorithm.upper()}({info.name})= {hashlib.new(algorithm, data).hexdigest()}\n"
        for info, data in files
    ]
    return member("box.mf", "".join(lines).encode())


def ova(disk: bytes, name: str = "disk.vmdk") -> bytes:
    """An OVA of one disk, with a manifest behind the descriptor."""
    files = member("box.ovf", ovf(name)), member(name, disk)
    return archive(files[0], manifest(*files), files[1])
