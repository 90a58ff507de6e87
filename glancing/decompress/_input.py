"""The input side of decompression: small helpings of compressed bytes, a cap on the output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glancing.errors import ErrorKind, VerificationError
from glancing.model import MIB, Compression

#: The most that a decoder is handed at once. What it has been handed counts as consumed, so the
#: ratio of output to input is wrong by this much at most.
INPUT_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """How much may come out.

    ``max_bytes`` always holds. ``max_ratio`` (output to consumed input) holds once more than
    ``free_bytes`` came out, and is None where the size of the image was published: zeros compress
    1028:1 with gz, so that a sparse image passes, and 1,290,555:1 with bz2, which only a bomb is.
    """

    max_bytes: int
    max_ratio: int | None = 2000
    free_bytes: int = 64 * MIB

    def check(self, output_bytes: int, input_bytes: int) -> None:
        """Raise VerificationError (``too-large``) when the limit is passed."""
        if output_bytes > self.max_bytes:
            raise VerificationError(
                f"the file expands to more than the allowed {self.max_bytes} bytes",
                kind=ErrorKind.TOO_LARGE,
            )
        if self.max_ratio is None or output_bytes <= self.free_bytes:
            return
        if output_bytes > self.max_ratio * input_bytes:
            raise VerificationError(
                f"the file expands to more than {self.max_ratio} times its size, "
                "as only decompression bombs do",
                kind=ErrorKind.TOO_LARGE,
                hint="an image that is really this sparse needs its size in the list",
            )


def broken(compression: Compression, reason: str) -> VerificationError:
    """The error for data that does not follow its format."""
    return VerificationError(
        f"the {compression} file is broken: {reason}", kind=ErrorKind.BAD_COMPRESSION
    )


def cut_short(compression: Compression) -> VerificationError:
    """The error for data that stops in the middle."""
    return broken(compression, "the data ends too early")


class Input:
    """Compressed bytes, taken in helpings and handed back where a helping was too large."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._position = 0
        self._passed_bytes = 0

    @property
    def consumed_bytes(self) -> int:
        """How many bytes were taken and not handed back."""
        return self._passed_bytes + self._position

    def at_end(self) -> bool:
        """Whether nothing is left; reads on where that must be found out."""
        while self._position == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._passed_bytes += len(self._piece)
            self._piece, self._position = piece, 0
        return False

    def take(self, max_bytes: int = INPUT_BYTES) -> bytes:
        """Up to ``max_bytes`` bytes; none only at the end."""
        if self.at_end():
            return b""
        taken = self._piece[self._position : self._position + max_bytes]
        self._position += len(taken)
        return taken

    def give_back(self, unused: bytes) -> None:
        """Hand back the last bytes that were taken."""
        if len(unused) <= self._position:
            self._position -= len(unused)
            return
        self._passed_bytes += self._position - len(unused)
        self._piece, self._position = unused + self._piece[self._position :], 0

    def read_exactly(self, size_bytes: int) -> bytes:
        """That many bytes, or fewer at the end."""
        parts = bytearray()
        while len(parts) < size_bytes and (part := self.take(size_bytes - len(parts))):
            parts += part
        return bytes(parts)

    def skip_zeros(self) -> int:
        """Take zero bytes as long as there are any, and count them."""
        skipped_bytes = 0
        while taken := self.take():
            rest = taken.lstrip(b"\0")
            skipped_bytes += len(taken) - len(rest)
            if rest:
                self.give_back(rest)
                break
        return skipped_bytes

    def rest(self) -> Iterator[bytes]:
        """Everything that is left, as it is."""
        while taken := self.take():
            yield taken
