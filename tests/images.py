"""Builders of small disk images: just enough of each format to be taken for it, and the traps."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import uuid

MIB = 1024 * 1024
SECTOR = 512
DISK_BYTES = 64 * MIB


def noise(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size_bytes)


def raw(size_bytes: int = 600 * 1024) -> bytes:
    """A file system without a partition table: zeros, then an ext4 superblock, then data."""
    return _padded(bytes(1024 + 56) + b"\x53\xef" + noise(4096), size_bytes)


def qcow2(
    *,
    version: int = 3,
    backing_file: bool = False,
    incompatible: int = 0,
    size_bytes: int = DISK_BYTES,
) -> bytes:
    """qcow2 (docs/interop/qcow2.txt in QEMU): the header and some clusters."""
    header = struct.pack(
        ">4sIQIIQ", b"QFI\xfb", version, 1024 if backing_file else 0, 9, 16, size_bytes
    )
    header = header.ljust(72, b"\0") + struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    name = b"/etc/shadow" if backing_file else b""
    return _padded(_padded(header, 1024) + name + noise(4096), 512 * 1024)


QCOW2_DATA_FILE = 1 << 2
QCOW2_EXTENDED_L2 = 1 << 4
QCOW2_UNKNOWN = 1 << 40


def vdi(size_bytes: int = DISK_BYTES) -> bytes:
    """VirtualBox's format."""
    header = bytearray(512)
    header[:40] = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
    struct.pack_into("<I", header, 0x40, 0xBEDA107F)
    struct.pack_into("<Q", header, 0x170, size_bytes)
    return _padded(bytes(header) + noise(4096), 512 * 1024)


def vhd(size_bytes: int = DISK_BYTES) -> bytes:
    """A dynamic VHD, which starts with a copy of its footer."""
    footer = _padded(b"conectix".ljust(40, b"\0") + struct.pack(">Q", size_bytes), 512)
    return _padded(footer + noise(4096), 512 * 1024) + footer


def vhdx(size_bytes: int = DISK_BYTES, metadata_at: int = 2 * MIB) -> bytes:
    """VHDX as Hyper-V lays it out: regions at 192 KiB, metadata at 2 MiB, its values 64 KiB on."""
    image = bytearray(metadata_at + MIB)
    image[:8] = b"vhdxfile"
    region = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
    struct.pack_into("<4sIII", image, 192 * 1024, b"regi", 0, 1, 0)
    struct.pack_into("<16sQII", image, 192 * 1024 + 16, region, metadata_at, MIB, 1)
    size = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
    struct.pack_into("<8sHH", image, metadata_at, b"metadata", 0, 1)
    struct.pack_into("<16sIII", image, metadata_at + 32, size, 64 * 1024, 8, 0)
    struct.pack_into("<Q", image, metadata_at + 64 * 1024, size_bytes)
    return bytes(image)


def vmdk_descriptor(create_type: str, extent: str) -> bytes:
    """The text part of a VMDK."""
    return (
        "# Disk DescriptorFile\nversion=1\nCID=0123abcd\nparentCID=ffffffff\n"
        f'createType="{create_type}"\n\n# Extent description\n{extent}\n\n'
        '# The Disk Data Base\nddb.adapterType = "lsilogic"\n'
    ).encode()


def vmdk(
    create_type: str = "monolithicSparse",
    extent: str = 'RW 131072 SPARSE "disk.vmdk"',
    size_bytes: int = DISK_BYTES,
    grains: bytes = b"",
) -> bytes:
    """A sparse extent with its descriptor inside; stream-optimised ones get a footer."""
    streamed = create_type == "streamOptimized"
    at_end = 0xFFFFFFFFFFFFFFFF

    def header(directory_at: int) -> bytes:
        fields = (b"KDMV", 1, 3, size_bytes // SECTOR, 128, 1, 20, 512, 21, directory_at)
        return _padded(struct.pack("<4sIIQQQQIQQ", *fields), SECTOR)

    text = _padded(vmdk_descriptor(create_type, extent), 20 * SECTOR)
    body = header(at_end if streamed else 21) + text + (grains or noise(512 * 1024))
    if not streamed:
        return body
    footer_marker = _padded(struct.pack("<QII", 1, 0, 3), SECTOR)
    return body + footer_marker + header(26) + bytes(SECTOR)


def iso(*, bootable_disk: bool = False, blocks: int = 320) -> bytes:
    """ISO 9660 with a primary volume descriptor; with a partition table too when hybrid."""
    image = bytearray(blocks * 2048)
    descriptor = 32 * 1024
    struct.pack_into("<B5sB", image, descriptor, 1, b"CD001", 1)
    struct.pack_into("<I", image, descriptor + 80, blocks)
    struct.pack_into("<H", image, descriptor + 128, 2048)
    if bootable_disk:
        image[:SECTOR] = mbr()
    return bytes(image)


def mbr(*, boot_flag: int = 0x80, kind: int = 0x83) -> bytes:
    """The first sector of a disk with one partition."""
    entry = struct.pack("<B3BB3BII", boot_flag, 0, 2, 0, kind, 0, 0, 0, 1, 2048)
    return b"\xeb\x63\x90".ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa"


def disk(*, gpt: bool = False, boot_flag: int = 0x80) -> bytes:
    """A raw disk with a partition table."""
    sector = mbr(boot_flag=0, kind=0xEE) if gpt else mbr(boot_flag=boot_flag)
    table = b"EFI PART" if gpt else b""
    return _padded(sector + table + noise(4096), 512 * 1024)


def qed() -> bytes:
    """QEMU's short-lived format."""
    return _padded(b"QED\0" + noise(4096), 512 * 1024)


def luks(version: int = 1) -> bytes:
    """An encrypted volume."""
    return _padded(struct.pack(">6sH", b"LUKS\xba\xbe", version) + noise(4096), 512 * 1024)


def tar(name: str = "disk.ovf") -> bytes:
    """A tar archive, as an OVA is one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4096
        archive.addfile(member, io.BytesIO(noise(4096)))
    return packed.getvalue()


def _padded(data: bytes, size_bytes: int) -> bytes:
    return data.ljust(size_bytes, b"\0")
