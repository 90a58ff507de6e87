"""Verifies what lists and checksum files are signed with; ``model.Signatures`` for a run.

OpenPGP (RFC 9580) against a keyring file, S/MIME (RFC 8551) against certificate authorities. What
comes back is what was signed, and nothing else of a document; whatever is not plainly good is a
SignatureError that tells which check failed.
"""

from glancing.signatures._smime import Authorities
from glancing.signatures._verifier import MAX_KEYRING_BYTES, Verifier, read_keyring

__all__ = ["MAX_KEYRING_BYTES", "Authorities", "Verifier", "read_keyring"]
