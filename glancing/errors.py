"""Everything that can go wrong, as one small tree, and the exit code of each outcome.

``ConfigError`` and ``ImageListError`` end a run before anything was touched, ``CloudError`` means
that the cloud could not be reached or logged in to, and an ``ImageError`` is the end of one image
while the others go on. Adapters wrap what their libraries raise and chain it; ``job`` catches once
per image, ``cli`` once per process.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What the process tells its caller; the table in the README is checked against this one."""

    OK = 0
    IMAGES_FAILED = 1
    USAGE = 2
    CLOUD = 3
    BUSY = 4
    INTERRUPTED = 130
    TERMINATED = 143


class ErrorKind(StrEnum):
    """The values of ``error.kind`` in a result; the table in the README is checked against this."""

    USAGE = "usage"
    CONFIG = "config"
    BAD_LIST = "bad-list"
    BAD_METADATA = "bad-metadata"
    BAD_SIGNATURE = "bad-signature"
    CLOUD_UNREACHABLE = "cloud-unreachable"
    LOGIN_REFUSED = "login-refused"
    NOT_FOUND = "not-found"
    HTTP_STATUS = "http-status"
    UNREACHABLE = "unreachable"
    FORBIDDEN_ADDRESS = "forbidden-address"
    STALLED = "stalled"
    INCOMPLETE = "incomplete"
    CHANGED = "changed"
    UNVERIFIABLE = "unverifiable"
    TOO_LARGE = "too-large"
    WRONG_DIGEST = "wrong-digest"
    WRONG_SIZE = "wrong-size"
    NO_DIGEST = "no-digest"
    BAD_DIGEST = "bad-digest"
    BAD_COMPRESSION = "bad-compression"
    FORMAT_MISMATCH = "format-mismatch"
    UNSAFE_FORMAT = "unsafe-format"
    EMPTY = "empty"
    NAME_TAKEN = "name-taken"
    AMBIGUOUS = "ambiguous"
    DOWNGRADE = "downgrade"
    CORRUPTED = "corrupted"
    DEACTIVATED = "deactivated"
    ID_SPENT = "id-spent"
    STORE = "store"
    FORBIDDEN = "forbidden"
    QUOTA_EXCEEDED = "quota-exceeded"
    REJECTED_FORMAT = "rejected-format"
    STORED_WRONG = "stored-wrong"
    BACKUP_FAILED = "backup-failed"
    NO_SPACE = "no-space"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


class GlancingError(Exception):
    """An expected failure: what went wrong, and where there is one, the way out.

    ``transient`` is the adapter's word on whether the same attempt may succeed later;
    ``retry_after_s`` is what a server asked for (RFC 9110, section 10.2.3), in seconds.
    """

    default_kind = ErrorKind.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind | None = None,
        hint: str | None = None,
        transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind or self.default_kind
        self.hint = hint
        self.transient = transient
        self.retry_after_s = retry_after_s


class ConfigError(GlancingError):
    """The command line, a variable or a local file that the operator named is wrong: exit 2."""

    default_kind = ErrorKind.CONFIG


class ImageListError(GlancingError):
    """An image list, or a document it refers to, cannot be read or is not what it should be."""

    default_kind = ErrorKind.BAD_LIST


class SignatureError(ImageListError):
    """A document is not signed as it has to be.

    ``check`` names what failed in one word (``signature``, ``signer``, ``validity``, …), ``signer``
    whose signature it claims to be, where that can be told.
    """

    default_kind = ErrorKind.BAD_SIGNATURE

    def __init__(
        self, message: str, *, check: str, signer: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.check = check
        self.signer = signer


class CloudError(GlancingError):
    """Keystone or Glance cannot be reached, or refuses the login: exit 3."""

    default_kind = ErrorKind.CLOUD_UNREACHABLE


class ImageError(GlancingError):
    """One image failed; the others go on."""


class DownloadError(ImageError):
    """A source did not give its bytes."""

    default_kind = ErrorKind.UNREACHABLE


class VerificationError(ImageError):
    """The bytes are not the ones that were published."""

    default_kind = ErrorKind.WRONG_DIGEST


class UnsafeImageError(ImageError):
    """The bytes are of a format that must not be stored under the format they claim, or at all."""

    default_kind = ErrorKind.UNSAFE_FORMAT


class StoreError(ImageError):
    """Glance, or the disk that keeps spools and backups, did not take or give what it should."""

    default_kind = ErrorKind.STORE


class InterruptedRunError(ImageError):
    """The run was told to stop while this image was being worked on."""

    default_kind = ErrorKind.INTERRUPTED


class RunInterrupted(BaseException):
    """A signal told the whole run to stop; raised in the main thread, wherever it is."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(f"interrupted, exit code {int(exit_code)}")
        self.exit_code = exit_code
