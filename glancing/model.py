"""The values that the parts of glancing hand to each other, and the protocols between them.

Everything here is immutable and says what it holds and in which unit. What a user writes is turned
into these values at the edge (``imagelist``, ``digests``, ``cli``), what Glance answers in
``glance``; inside, the types are trusted.

The words are those of the whole project: a *spec* is one wanted image, a *stored* image is one that
Glance has, *published* is about the bytes at the URL and *image* about the bytes after
decompression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

from glancing.sharding import Shard

MIB = 1024 * 1024

# --- where bytes come from ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Url:
    """An ``http`` or ``https`` URL that shows neither user info, query nor fragment when printed.

    ``full`` is what is requested; ``str()`` and ``repr()`` give the public form, so that a secret
    cannot reach an event, a result or a property by being formatted.
    """

    full: str = field(repr=False)

    @property
    def parts(self) -> SplitResult:
        """The split URL, secrets included."""
        return urlsplit(self.full)

    @property
    def travels_openly(self) -> bool:
        """Whether anybody on the way can change what is read from there."""
        return self.parts.scheme == "http"

    @property
    def public(self) -> str:
        """Scheme, host, port and path."""
        parts = self.parts
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    def __str__(self) -> str:
        return self.public

    def __repr__(self) -> str:
        return f"Url({self.public!r})"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file of this machine, named by the operator's own words."""

    path: Path

    @property
    def travels_openly(self) -> bool:
        """Never: it does not travel."""
        return False

    def __str__(self) -> str:
        return str(self.path)


Location = Url | LocalPath


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry stands: the position of its list in the run, its list's name and its line.

    The order of origins is the order of the run. ``list_name`` is None for ``import``; ``line``
    is 1-based, or the entry's 1-based number in a format that has no lines. ``depth`` tells how
    many lists led to this one: what a list includes comes after its own entries.
    """

    list_index: int = 0
    line: int = 0
    list_name: str | None = None
    depth: int = 0

    def __lt__(self, other: Origin) -> bool:
        """Order by list, depth, name of an included list, and line."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, int, str, int]:
        return self.list_index, self.depth, (self.list_name or "") if self.depth else "", self.line


# --- what is wanted -------------------------------------------------------------------------------


HEX_LENGTHS: Mapping[str, int] = MappingProxyType(
    {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
)
"""The algorithms that are read and computed, weakest first, and the length of a value in digits."""


def algorithm_named(label: str) -> str | None:
    """The hashlib name of an algorithm as publishers write it: ``SHA-256``, ``sha2-256``, ``MD5``.

    None for everything that is not in ``HEX_LENGTHS``.
    """
    name = label.strip().lower().replace("sha2-", "sha").replace("-", "").replace("_", "")
    return name if name in HEX_LENGTHS else None


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest: its hashlib name and its value in lower-case hexadecimal."""

    algorithm: str
    value: str

    @classmethod
    def parse(cls, label: str | None, value: str) -> Digest:
        """A digest as published; without a label, its length means the common algorithm.

        ValueError, with a message for people, when the algorithm is unknown, the value is not
        hexadecimal or the two contradict each other.
        """
        digits = value.strip().lower()
        if not digits or not set(digits) <= set("0123456789abcdef"):
            raise ValueError("it is not hexadecimal")
        by_length = {length: name for name, length in HEX_LENGTHS.items()}
        algorithm = by_length.get(len(digits)) if label is None else algorithm_named(label)
        if algorithm is None:
            what = f"{len(digits)} digits" if label is None else f"the name {label!r}"
            raise ValueError(f"no known algorithm has {what}")
        length = HEX_LENGTHS[algorithm]
        if len(digits) != length:
            raise ValueError(f"{algorithm} has {length} hexadecimal digits, not {len(digits)}")
        return cls(algorithm, digits)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


class Compression(StrEnum):
    """How the published file wraps the image; a compressed archive is called by its compression."""

    NONE = "none"
    GZIP = "gz"
    BZIP2 = "bz2"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"


@dataclass(frozen=True, slots=True)
class Expected:
    """What is said of the bytes before they are read; all of it must hold.

    ``published`` digests and size are of the file at the source, ``image`` ones of the image after
    decompression, ``either`` ones of whichever matches. An algorithm stands at most once in each.
    ``compression`` and ``disk_format`` are None where nobody said; ``disk_format`` is a name of
    Glance's ``disk_format`` list. ``over_http`` has those digests that came unsigned over plain
    HTTP.
    """

    published: tuple[Digest, ...] = ()
    image: tuple[Digest, ...] = ()
    either: tuple[Digest, ...] = ()
    published_size_bytes: int | None = None
    image_size_bytes: int | None = None
    compression: Compression | None = None
    disk_format: str | None = None
    over_http: frozenset[Digest] = frozenset()

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Every expected digest, whichever side it is of."""
        return self.published + self.image + self.either


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a list says of an image's record besides its properties; None where it says nothing.

    ``id`` is the record's own, fixed for ever. ``keep`` is how many earlier versions may stay.
    ``deactivated`` is Glance's status for an image that nobody may download or boot.
    """

    visibility: str | None = None
    protected: bool | None = None
    hidden: bool | None = None
    deactivated: bool | None = None
    min_disk_gib: int | None = None
    min_ram_mib: int | None = None
    tags: frozenset[str] = frozenset()
    id: str | None = None
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One wanted image.

    ``identity`` is what makes it the same image from run to run: the marketplace ID, the list's own
    identifier, else the URL or path without user info and query. ``descriptor`` is how the user
    named it, without secrets. ``sources`` are tried in turn. ``successor`` is the identity of a
    newer image that is to have the name that this one may still bear. A ``dated`` image has the day
    of its file (Last-Modified) for a version.
    """

    name: str
    identity: str
    descriptor: str
    origin: Origin
    sources: tuple[Location, ...]
    expected: Expected = Expected()
    version: str | None = None
    mpid: str | None = None
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    list_mark: str | None = None
    attributes: Attributes = Attributes()
    successor: str | None = None
    dated: bool = False


@dataclass(frozen=True, slots=True)
class ListMark:
    """What is noted of a list on each of its images: the memory against older copies of it.

    ``created`` is its date as the list has it (RFC 3339).
    """

    identifier: str
    version: str
    created: str

    def __str__(self) -> str:
        return f"{self.identifier} {self.version} {self.created}"

    @classmethod
    def parse(cls, text: str | None) -> ListMark | None:
        """Read a mark; None for anything else."""
        identifier, _, rest = (text or "").partition(" ")
        version, _, created = rest.rpartition(" ")
        mark = cls(identifier, version, created)
        return mark if identifier and mark.created_at is not None else None

    @property
    def created_at(self) -> datetime | None:
        """The date as a moment, None where it cannot be read; one without a zone is in UTC."""
        try:
            moment = datetime.fromisoformat(self.created)
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            return None


class Severity(StrEnum):
    """Whether a problem of a list costs an image or only a line of warning."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a list that is not as it should be, with its place.

    ``event`` is the event's name (``list.duplicate_skipped``); an ERROR becomes a failed row of the
    result, with ``descriptor`` as far as the entry could be read.
    """

    severity: Severity
    event: str
    message: str
    origin: Origin
    descriptor: str = ""
    hint: str | None = None


class NeedKind(StrEnum):
    """What kind of document a need is for."""

    STRATUSLAB = "stratuslab"
    SUMS = "sums"
    LIST = "list"
    OCI_MANIFEST = "oci-manifest"
    OCI_TAGS = "oci-tags"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a line of a plain list says of its image, in place of what its descriptor leads to.

    ``sums`` are digests as they stand there, ``sums_files`` are where they are found: in each of
    them, or with ``in_any_file`` in at least one. ``kept_as`` is the property that keeps what was
    found there.
    """

    name: str | None = None
    id: str | None = None
    version: str | None = None
    format: str | None = None
    sums: tuple[Digest, ...] = ()
    sums_files: tuple[Location, ...] = ()
    in_any_file: bool = False
    kept_as: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """A further document without which an entry is no spec yet.

    ``location`` is where it is, ``max_bytes`` how much of it may be read. ``trusted`` tells whether
    the document is the operator's own words (a local file) and may therefore name local files.
    ``keys`` come before what the document says; ``over_http`` tells that they came unsigned over
    plain HTTP, and with them the address of the digests. ``spec`` is the image whose digests are
    needed, ``context`` how a further list is to be read, ``seen`` what pages before told already.
    """

    kind: NeedKind
    location: Location
    max_bytes: int
    descriptor: str
    origin: Origin
    mpid: str | None = None
    trusted: bool = False
    naming: Naming | None = None
    keys: Keys = Keys()
    over_http: bool = False
    spec: Spec | None = None
    context: ListContext | None = None
    seen: frozenset[str] = frozenset()


class Naming(StrEnum):
    """How an image that has metadata is named: the title (``sync``) or OS, version and arch."""

    TITLE = "title"
    OS_VERSION_ARCH = "os-osversion-arch"


class ListFormat(StrEnum):
    """The formats of image lists, as ``--format`` names them."""

    PLAIN = "plain"
    HEPIX = "hepix"
    SIMPLESTREAMS = "simplestreams"
    DEFINITIONS = "openstack-image-manager"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on the attributes of an item: ``key=value``, ``!=``, ``~regex`` or ``!~``.

    An attribute that is not there is taken for an empty one (as simplestreams does).
    """

    key: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read a condition as operators write it; ValueError when it is none."""
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(!=|!~|=|~)\s*(.*)", text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no filter such as arch=amd64 or release~noble|jammy")
        if "~" in found[2]:
            try:
                re.compile(found[3])
            except re.error as error:
                raise ValueError(f"{found[3]!r} is no regular expression: {error}") from None
        return cls(found[1], found[2], found[3])

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether attributes meet it."""
        value = attributes.get(self.key, "")
        if self.sign in ("~", "!~"):
            return bool(re.search(self.value, value)) == (self.sign == "~")
        return (value == self.value) == (self.sign == "=")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the operator wants lists to be read.

    ``format`` is what they are, None to find out. ``filters`` and ``newest`` choose among the items
    of simplestreams: all conditions must hold, and of each product that many serials are taken.
    """

    format: ListFormat | None = None
    filters: tuple[Filter, ...] = ()
    newest: int | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose HEPiX lists the operator believes.

    Names are in slash form, None for any that the authorities certify. ``list_ids`` are the
    ``dc:identifier`` that lists may have, none for any.
    """

    endorser_dn: str | None = None
    endorser_ca: str | None = None
    list_ids: tuple[str, ...] = ()
    allow_unsigned: bool = False


NO_TRUST = Trust()


@dataclass(frozen=True, slots=True)
class Signature:
    """A good signature: the bytes that it covers, and whose it is.

    ``signer`` is the fingerprint of an OpenPGP key, or the subject of a certificate in slash form
    with its ``issuer``; ``algorithm`` is the digest that was signed.
    """

    content: bytes = field(repr=False)
    signer: str
    algorithm: str
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class ListContext:
    """What the reading of a list depends on besides its bytes.

    Relative paths and addresses of the list start from ``location``. ``included_by`` are the lists
    that led to this one, outermost first. ``signature`` is the good one that the list has;
    ``trust`` and ``now`` are for formats that are judged by them.
    """

    location: Location
    origin: Origin
    marketplace: Url
    naming: Naming = Naming.TITLE
    reading: Reading = Reading()
    included_by: tuple[str, ...] = ()
    signature: Signature | None = None
    trust: Trust = NO_TRUST
    now: datetime | None = None

    @property
    def trusted(self) -> bool:
        """Whether these are the operator's own words, which may name local files."""
        return isinstance(self.location, LocalPath)

    @property
    def folder(self) -> Path | None:
        """Where relative paths start; None for a list that was fetched."""
        return self.location.path.parent if isinstance(self.location, LocalPath) else None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser made of a document: wanted images, problems, and documents needed further.

    ``signed`` tells that a good signature covers it.
    """

    specs: tuple[Spec, ...] = ()
    problems: tuple[Problem, ...] = ()
    needs: tuple[Need, ...] = ()
    signed: bool = False


# --- what Glance has ------------------------------------------------------------------------------


class State(StrEnum):
    """The property ``glancing_state``: the part that an image of ours plays."""

    INCOMING = "incoming"
    CURRENT = "current"
    BACKUP = "backup"


TAG = "glancing"
PROPERTY_PREFIX = "glancing_"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image of our own project as Glance has it now.

    ``checksum`` is Glance's md5, ``hash_algorithm`` and ``hash_value`` its ``os_hash_*`` pair,
    ``virtual_size_bytes`` the size of the disk inside; all are None before data arrived. Times are
    aware and in UTC. ``properties`` are the additional properties, ours and others'.
    """

    id: str
    name: str
    status: str
    visibility: str = "shared"
    hidden: bool = False
    protected: bool = False
    owner: str | None = None
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    checksum: str | None = None
    hash_algorithm: str | None = None
    hash_value: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def mpid(self) -> str | None:
        """The marketplace ID, the mark that the seed left as well."""
        return self.properties.get("mpid") or None

    @property
    def version(self) -> str | None:
        """The publisher's version."""
        return self.properties.get("version") or None

    @property
    def identity(self) -> str | None:
        """What makes it the same image from run to run, where it is one of ours."""
        return self.properties.get("glancing_identity") or self.mpid

    @property
    def state(self) -> str | None:
        """The part that it plays; None for images that glancing did not make."""
        return self.properties.get("glancing_state") or None

    @property
    def marked(self) -> bool:
        """Whether glancing or the seed made it."""
        return TAG in self.tags or self.mpid is not None

    @property
    def digests(self) -> tuple[Digest, ...]:
        """What Glance itself computed over the stored bytes."""
        found = []
        if self.checksum:
            found.append(Digest("md5", self.checksum))
        if self.hash_algorithm and self.hash_value:
            found.append(Digest(self.hash_algorithm, self.hash_value))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class NewImage:
    """The record to create in Glance before data is sent; it starts private and hidden.

    With an ``id`` given, creating it is a test-and-set: only one run gets it, once and for ever.
    """

    name: str
    disk_format: str
    id: str | None = None
    container_format: str = "bare"
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    min_disk_gib: int = 0
    min_ram_mib: int = 0


@dataclass(frozen=True, slots=True)
class ImageChange:
    """A change of an image's record, made by one PATCH; None leaves a field as it is.

    ``properties`` are set, ``remove`` are deleted where present.
    """

    name: str | None = None
    visibility: str | None = None
    hidden: bool | None = None
    protected: bool | None = None
    min_disk_gib: int | None = None
    min_ram_mib: int | None = None
    tags: frozenset[str] | None = None
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    remove: frozenset[str] = frozenset()


# --- what came through the pipeline ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of a source from another without reading it (RFC 9110, section 8.8)."""

    etag: str | None = None
    last_modified: str | None = None
    size_bytes: int | None = None

    def __str__(self) -> str:
        """The form kept in the property ``glancing_validators``; empty when nothing is known."""
        parts = {
            "etag": self.etag,
            "last-modified": self.last_modified,
            "length": self.size_bytes,
        }
        if not (self.etag or self.last_modified):
            return ""  # a length alone tells nothing about the bytes
        return "; ".join(f"{key}={value}" for key, value in parts.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pass over the bytes found out.

    ``matched`` and ``mismatched`` name the expectations that held and that did not
    (``sha256 of the image``); ``mismatched`` is empty unless the operator forced the import.
    ``virtual_size_bytes`` is the size of the disk inside the image, 0 when unknown.
    """

    published: tuple[Digest, ...]
    image: tuple[Digest, ...]
    published_size_bytes: int
    image_size_bytes: int
    compression: Compression
    disk_format: str
    virtual_size_bytes: int = 0
    matched: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()


# --- what became of it ---------------------------------------------------------------------------


class Outcome(StrEnum):
    """What happened to one image; a result counts each of them."""

    UPLOADED = "uploaded"
    REPLACED = "replaced"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"
    PLANNED = "planned"
    BUSY = "busy"


class Integrity(StrEnum):
    """How far the bytes of an image are proven.

    ``published``: they match digests that its publisher or the operator gave. ``transport``: those
    digests and the image all came unsigned over plain HTTP, which shows accidents, but not what an
    attacker on the way did to both. ``none``: there was nothing to check against. ``forced``: they
    did not match, and the operator said ``--force``.
    """

    PUBLISHED = "published"
    TRANSPORT = "transport"
    NONE = "none"
    FORCED = "forced"


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as the result tells it; ``kind`` is a value of ``errors.ErrorKind``."""

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One entry of the result object: what was decided for an image and what became of it."""

    name: str
    descriptor: str
    origin: Origin
    decision: str
    reason: str
    outcome: Outcome
    image_id: str | None = None
    backup_id: str | None = None
    backup_path: str | None = None
    kept_path: str | None = None
    size_bytes: int | None = None
    disk_format: str | None = None
    digests: tuple[Digest, ...] = ()
    matched: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    integrity: Integrity | None = None
    error: ErrorReport | None = None
    seconds: float = 0.0


# --- protocols ------------------------------------------------------------------------------------


class SourceStream(Protocol):
    """The bytes of a source, on their way.

    ``size_bytes`` is the length that the source announced, None when it did not.
    ``end_is_proven`` tells whether a premature end would be noticed (Content-Length, chunked
    framing, a local file); where it is False only a digest or a size can tell.
    """

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def validators(self) -> Validators: ...

    @property
    def end_is_proven(self) -> bool: ...

    def __iter__(self) -> Iterator[bytes]:
        """Pieces in order, resumed where needed; raises DownloadError."""
        ...

    def close(self) -> None:
        """Break off; safe from another thread and more than once."""
        ...


class Sources(Protocol):
    """Where images and documents are read from."""

    def vouch(self, locations: Iterable[Location]) -> None:
        """The operator's own words name these: their hosts may be in any network."""
        ...

    def names_in(self, location: Location) -> tuple[str, ...] | None:
        """The names of all files in a folder of this machine; None for what is no folder.

        Raises DownloadError.
        """
        ...

    def open(self, location: Location) -> AbstractContextManager[SourceStream]:
        """The stream of one source; raises DownloadError."""
        ...

    def probe(self, location: Location) -> Validators:
        """What the source says of itself without giving its bytes; raises DownloadError."""
        ...

    def read(self, location: Location, max_bytes: int) -> bytes:
        """A whole document of at most ``max_bytes``; raises DownloadError."""
        ...


class Signatures(Protocol):
    """Verifies what lists and checksum files are signed with.

    Every method raises SignatureError for what is not plainly good.
    """

    @property
    def has_keyring(self) -> bool:
        """Whether OpenPGP signatures can be verified, and are therefore demanded."""
        ...

    def clear_signed(self, message: bytes) -> Signature:
        """The text under the signature of an OpenPGP clear-signed message, and no other."""
        ...

    def detached(self, data: bytes, signature: bytes) -> Signature:
        """A document whose OpenPGP signature stands beside it."""
        ...

    def smime(self, message: bytes) -> Signature:
        """The content of an S/MIME message with one signer, certified by a known authority."""
        ...


class UploadBody(Protocol):
    """The data of one upload: read once, of a known size or not."""

    @property
    def size_bytes(self) -> int | None: ...

    def __iter__(self) -> Iterator[bytes]: ...


class ImageStore(Protocol):
    """Glance, as far as glancing needs it. Every method raises StoreError or CloudError."""

    @property
    def project_id(self) -> str:
        """Our own project."""
        ...

    def now(self) -> datetime:
        """The time by Glance's own clock when it last answered, aware, in UTC."""
        ...

    def inventory(self) -> tuple[StoredImage, ...]:
        """All images of our own project, hidden ones included."""
        ...

    def get(self, image_id: str) -> StoredImage | None:
        """One image as it is now; None when there is none."""
        ...

    def create(self, image: NewImage) -> StoredImage | None:
        """Create a private, hidden record without data; None when its id is taken or spent."""
        ...

    def upload(self, image_id: str, body: UploadBody) -> None:
        """Send the data with one request that is never repeated."""
        ...

    def update(self, image: StoredImage, change: ImageChange) -> StoredImage:
        """Change the record with one PATCH: all of it or nothing."""
        ...

    def deactivate(self, image_id: str) -> None:
        """Let nobody download or boot an image; one that is deactivated already is no error."""
        ...

    def delete(self, image_id: str) -> None:
        """Delete an image; one that is gone already is no error."""
        ...

    def download(self, image: StoredImage) -> AbstractContextManager[SourceStream]:
        """The stored bytes."""
        ...

    def members(self, image_id: str) -> tuple[str, ...]:
        """The projects that a shared image is shared with."""
        ...

    def add_member(self, image_id: str, project_id: str) -> None:
        """Share an image with a project; acceptance stays theirs."""
        ...


class Workspace(Protocol):
    """The directories that a run may write to."""

    def spool(self, name: str, pieces: Iterable[bytes], size_bytes: int | None) -> Path:
        """Write pieces to a new file of the work directory, removed again on failure."""
        ...

    def discard(self, path: Path) -> None:
        """Remove a spooled file."""
        ...

    def keep(self, path: Path) -> Path:
        """Let a spooled file outlive its run; returns its new path."""
        ...

    def is_alive(self, run_id: str) -> bool | None:
        """Whether another run is at work; None when these directories cannot tell."""
        ...

    def forget_dead_runs(self) -> None:
        """Take note that nothing is left of the runs that are not alive any more."""
        ...

    def has_room(self, size_bytes: int) -> bool:
        """Whether a spool of this size fits into the work directory."""
        ...

    def back_up(self, image: StoredImage, pieces: Iterable[bytes]) -> Path:
        """Write an image's pieces to the backup directory: ``.part``, flush, then rename."""
        ...


class Clock(Protocol):
    """The time, so that tests can set it."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment."""
        ...


class Events(Protocol):
    """Where events go: ``noun.verb_past`` and fields, never formatted sentences."""

    def debug(self, event: str, **fields: Any) -> None: ...

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


class Progress(Protocol):
    """Where it is shown how far images are."""

    def advanced(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        """So much of an image was read; ``total_bytes`` is None while nobody knows."""
        ...

    def ended(self, name: str) -> None:
        """The image is no longer being read."""
        ...


StoreFactory = Callable[[], ImageStore]


# --- options --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for, for one run.

    ``disk_format`` is the operator's word on the format, ``"detected"`` for whatever the bytes are,
    None to believe the list. ``require_digest`` is None, ``"any"`` or the weakest algorithm that
    is accepted.
    """

    dry_run: bool = False
    force: bool = False
    verify_digests: bool = True
    spool: bool = False
    keep_temps: bool = False
    adopt: bool = False
    backup: bool = False
    require_digest: str | None = None
    disk_format: str | None = None
    jobs: int = 2
    only: tuple[str, ...] = ()
    shard: Shard = field(default_factory=Shard)
    max_size_bytes: int = 1024**4
    image_timeout_s: float = 7200.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently something transient is tried again; times in seconds."""

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


ALGORITHMS: Sequence[str] = tuple(HEX_LENGTHS)
