"""A HEPiX list as ``sync`` takes it: whose it is, whether it is the one asked for, and how old.

A list counts only when its endorser signed it: the signer's certificate names the endorser that
the list names, and both are the one that the operator named, if any. Its times are judged with a
tolerance of five minutes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from glancing.errors import ImageListError, SignatureError
from glancing.imagelist import hepix
from glancing.imagelist._text import clipped
from glancing.imagelist.hepix import HepixList
from glancing.model import ListContext, Parsed, Problem, Severity, Signature, Spec, Trust
from glancing.names import is_same_name

CLOCK_SKEW = timedelta(minutes=5)
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)  # this program did not exist before


def parse(data: bytes, context: ListContext) -> Parsed:
    """The images of a list; raises SignatureError, and ImageListError when it is not to be used.

    With ``context.signature`` the bytes are what was signed; without it they are the document.
    """
    signature = context.signature
    if signature is None and not context.trust.allow_unsigned:
        raise SignatureError(
            "the list is not signed",
            check="unsigned",
            hint="--allow-unsigned-list takes it all the same",
        )
    read = hepix.parse if signature is None else hepix.parse_content
    found = read(data, origin=context.origin, naming=context.naming)
    notes = _endorsed(found, signature, context)
    _check_identifier(found, context.trust)
    _check_times(found, context.now)
    current, expired = _expiry(found, context.now)
    problems = (*(p for p in found.problems if p.event != "list.signature_unchecked"), *expired)
    return Parsed(current, (*notes, *problems), signed=signature is not None)


# --- whose it is ----------------------------------------------------------------------------------


def _endorsed(
    found: HepixList, signature: Signature | None, context: ListContext
) -> tuple[Problem, ...]:
    """Warnings about how far the endorser is known; SignatureError when it is another one."""
    trust = context.trust
    if signature is None:
        return (_warning("list.unsigned", "the list is taken though nobody signed it", context),)
    if signature.issuer is None:  # by OpenPGP: the operator's keyring names the endorser
        _demand(trust.endorser_dn is None and trust.endorser_ca is None, _BY_OPENPGP, signature)
        return ()
    signer, issuer = signature.signer, signature.issuer
    _demand(is_same_name(found.endorser_dn, signer), _not_named("hv:dn", signer), signature)
    _demand(is_same_name(found.endorser_ca, issuer), _not_named("hv:ca", issuer), signature)
    if trust.endorser_dn is not None:
        _demand(is_same_name(trust.endorser_dn, signer), _not_asked(signer), signature)
    if trust.endorser_ca is not None:
        _demand(is_same_name(trust.endorser_ca, issuer), _not_asked(issuer), signature)
    if trust.endorser_dn is None:
        what = f"signed by {signer}; any signer of these authorities would have been accepted"
        return (_warning("list.any_endorser_accepted", what, context),)
    return ()


_BY_OPENPGP = "the list is signed by an OpenPGP key, not by the endorser that was asked for"


def _demand(condition: bool, message: str, signature: Signature) -> None:
    if not condition:
        raise SignatureError(clipped(message), check="endorser", signer=signature.signer)


def _not_named(field: str, name: str) -> str:
    return f"{field} of the list is not {name}, whose certificate signed it"


def _not_asked(name: str) -> str:
    return f"the list is endorsed by {name}, not by the one that was asked for"


def _warning(event: str, message: str, context: ListContext) -> Problem:
    return Problem(Severity.WARNING, event, message, context.origin)


# --- which one, and how old -----------------------------------------------------------------------


def _check_identifier(found: HepixList, trust: Trust) -> None:
    if trust.list_ids and found.identifier not in trust.list_ids:
        raise ImageListError(
            f"dc:identifier of the list is {clipped(found.identifier)}",
            hint=f"--list-id asks for {' or '.join(trust.list_ids)}",
        )


def _check_times(found: HepixList, now: datetime | None) -> None:
    if now is None or now < _EARLIEST:
        raise ImageListError(f"the clock says {now}: the age of the list cannot be judged")
    if found.created is None:
        raise ImageListError("the list has no dc:date:created: its age cannot be judged")
    if found.created > now + CLOCK_SKEW:
        raise ImageListError(f"the list is dated {found.created}, which is in the future")
    if found.expires is not None and found.expires < now - CLOCK_SKEW:
        raise ImageListError(f"the list has expired on {found.expires}")


def _expiry(found: HepixList, now: datetime | None) -> tuple[tuple[Spec, ...], tuple[Problem, ...]]:
    """The images that have not expired by themselves, and a problem for each that has."""
    limits = found.image_expires or {}
    expired = {
        identifier: limit
        for identifier, limit in limits.items()
        if now is not None and limit < now - CLOCK_SKEW
    }
    current = tuple(spec for spec in found.specs if spec.identity not in expired)
    problems = tuple(
        Problem(
            Severity.ERROR,
            "list.entry_refused",
            f"image {spec.origin.line}: it has expired on {expired[spec.identity]}",
            spec.origin,
            spec.identity,
        )
        for spec in found.specs
        if spec.identity in expired
    )
    return current, problems
