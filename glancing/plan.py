"""Decides what to do for each wanted image; touches nothing.

Specs and the inventory go in, decisions come out, each with its reason. Times and facts about
sources are passed in, so a dry run prints the very plan that a real run carries out. ``decide``
walks the decision table of the README from top to bottom: ``_RULES`` holds one function per row (or
per group of rows that share a condition), and the first that answers wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TypeGuard

from glancing import marks
from glancing.errors import ErrorKind
from glancing.model import (
    Compression,
    Digest,
    ImageChange,
    ListMark,
    Spec,
    State,
    StoredImage,
    Validators,
)
from glancing.versions import version_key

# --- decisions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upload:
    """Glance has nothing of the kind: make it.

    ``making_way`` is what happens to images that bear such names so far, right afterwards.
    """

    spec: Spec
    reason: str
    making_way: tuple[Update, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """Glance has it already. ``retire`` are surplus images of the same identity."""

    spec: Spec
    stored: StoredImage
    reason: str
    retire: tuple[StoredImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """Glance has the bytes, but not the name or the properties.

    ``making_way`` as for ``Upload``. ``after`` is the image that has to be there before this one
    gives its name up; it happens with that one's ``making_way``.
    """

    spec: Spec
    stored: StoredImage
    change: ImageChange
    reason: str
    retire: tuple[StoredImage, ...] = ()
    making_way: tuple[Update, ...] = ()
    after: Spec | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """Glance has another version: publish the new one, keep ``stored`` as the backup.

    ``bytes_unknown`` says that only reading the source can tell whether it is another one at all.
    ``making_way`` as for ``Upload``.
    """

    spec: Spec
    stored: StoredImage
    reason: str
    retire: tuple[StoredImage, ...] = ()
    bytes_unknown: bool = False
    making_way: tuple[Update, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing may be done without the operator; ``hint`` is the way out.

    ``bytes_unknown`` says that the source's validators may still show that nothing is to be done.
    """

    spec: Spec
    kind: ErrorKind
    reason: str
    hint: str
    stored: StoredImage | None = None
    bytes_unknown: bool = False


Decision = Upload | Skip | Update | Replace | Refuse


@dataclass(frozen=True, slots=True)
class Policy:
    """How this run decides.

    ``by_name`` is the rule of ``import``: the name is the identity, nothing is ambiguous, and
    versions do not matter because the operator named this one image. ``adopt`` lets a run take over
    images that it did not make. ``force`` has wrong digests accepted, so they refuse nothing here
    either: the image that an earlier forced run made is to be found equal when it is read.
    """

    by_name: bool = False
    adopt: bool = False
    force: bool = False


class Bytes(Enum):
    """What can be said of a spec's bytes against stored ones before reading them."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


NO_VALIDATORS: Mapping[str, Validators] = MappingProxyType({})


def decide(
    specs: Iterable[Spec],
    inventory: Iterable[StoredImage],
    *,
    policy: Policy = Policy(),
    validators: Mapping[str, Validators] = NO_VALIDATORS,
) -> tuple[Decision, ...]:
    """Decide for every spec, in the order given.

    ``validators`` holds, by identity, what the sources of bare URLs say of themselves now; without
    them such an entry is a replace with ``bytes_unknown`` (see ``unread``).
    """
    wanted, stored = tuple(specs), tuple(inventory)
    newest = _newest_lists(stored)
    nameless: frozenset[str] = frozenset()
    while True:
        desk = _Desk(wanted, _Index.of(stored, nameless), newest, policy, validators)
        decisions = desk.decide_all()
        leaving = _leaving(decisions)
        if leaving <= nameless:
            return _in_turn(decisions)
        nameless |= leaving


def waits(decision: Decision) -> bool:
    """Whether others have to be carried out first."""
    return isinstance(decision, Update) and decision.after is not None


def unread(decisions: Iterable[Decision]) -> tuple[Spec, ...]:
    """Specs of bare sources, whose validators may show that nothing has changed."""
    return tuple(d.spec for d in decisions if isinstance(d, Replace | Refuse) and d.bytes_unknown)


# --- comparing ------------------------------------------------------------------------------------


def compare_bytes(spec: Spec, stored: StoredImage) -> Bytes:
    """Compare by digests alone.

    Digests of one side of the decompressor prove both equality and difference. A digest of the
    published file that equals one of the stored image proves equality too, unless the file is known
    to be compressed, but a difference across sides proves nothing. Digests of either side prove
    equality by agreeing with one side, and difference only by disagreeing with both.
    """
    image = _by_algorithm(marks.kept_image(stored) + stored.digests)
    published = _by_algorithm(marks.kept_published(stored))
    expected = spec.expected
    if expected.compression is Compression.NONE:
        published = {**published, **image}
    either = {_agree(expected.either, image), _agree(expected.either, published)}
    verdicts = {
        _agree(expected.image, image),
        _agree(expected.published, published),
        True if True in either else _same_answer(either),
    }
    if False in verdicts:
        return Bytes.DIFFERENT
    uncompressed = expected.compression in (None, Compression.NONE)
    if True in verdicts or (uncompressed and _agree(expected.published, image)):
        return Bytes.SAME
    return Bytes.UNKNOWN


def _agree(digests: Iterable[Digest], known: Mapping[str, str]) -> bool | None:
    """Whether all digests that can be compared are equal; None when none can be."""
    answers = _agreements(digests, known)
    return all(answers) if answers else None


def _same_answer(answers: set[bool | None]) -> bool | None:
    return answers.pop() if len(answers) == 1 else None


def _agreements(digests: Iterable[Digest], known: Mapping[str, str]) -> list[bool]:
    return [known[d.algorithm] == d.value for d in digests if d.algorithm in known]


def _by_algorithm(digests: Iterable[Digest]) -> dict[str, str]:
    return {digest.algorithm: digest.value for digest in digests}


class _Age(Enum):
    """A wanted version against a stored one."""

    NEWER = "newer"
    SAME = "same"
    OLDER = "older"
    UNKNOWN = "unknown"


def _age(spec: Spec, stored: StoredImage) -> _Age:
    if not spec.version or not stored.version:
        return _Age.UNKNOWN
    wanted, present = version_key(spec.version), version_key(stored.version)
    if wanted == present:
        return _Age.SAME
    return _Age.NEWER if wanted > present else _Age.OLDER


# --- the inventory, arranged for look-ups ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Index:
    """Images that may be matched, found by identity, name and digest in constant time."""

    by_identity: Mapping[str, list[StoredImage]]
    by_name: Mapping[str, list[StoredImage]]
    by_digest: Mapping[Digest, list[StoredImage]]

    @classmethod
    def of(cls, inventory: Iterable[StoredImage], nameless: frozenset[str] = frozenset()) -> _Index:
        """Arrange an inventory; those of ``nameless`` are about to give their names up."""
        index = cls(defaultdict(list), defaultdict(list), defaultdict(list))
        for stored in _matchable(tuple(inventory)):
            if stored.id not in nameless:
                index.by_name[stored.name].append(stored)
            if stored.marked and stored.identity:
                index.by_identity[stored.identity].append(stored)
            known = {*stored.digests, *marks.kept_image(stored), *marks.kept_published(stored)}
            for digest in known:
                index.by_digest[digest].append(stored)
        return index


def _matchable(inventory: Sequence[StoredImage]) -> list[StoredImage]:
    """Images that hold data and are neither backups nor being filled."""
    bearers = {(stored.name, stored.mpid) for stored in inventory}
    ours = {stored.mpid for stored in inventory if stored.state}
    return [
        stored
        for stored in inventory
        if stored.status in ("active", "deactivated")
        and stored.state not in (State.BACKUP, State.INCOMING)
        and not _is_seed_backup(stored, bearers, ours)
    ]


def _is_seed_backup(
    stored: StoredImage, bearers: set[tuple[str, str | None]], ours: set[str | None]
) -> bool:
    """The seed left backups as ``X_old`` with the mpid of ``X`` and no further mark.

    They stay backups when ``X`` has become one of ours and may bear another name by now.
    """
    if stored.state or not stored.mpid or not stored.name.endswith("_old"):
        return False
    return (stored.name.removesuffix("_old"), stored.mpid) in bearers or stored.mpid in ours


def newest_good(images: Iterable[StoredImage]) -> list[StoredImage]:
    """Order images that claim one identity: the one to keep current comes first."""
    return sorted(images, key=_claim, reverse=True)


def _claim(stored: StoredImage) -> tuple[bool, bool, str]:
    created = stored.created_at.isoformat() if stored.created_at else ""
    return (stored.status == "active", is_good(stored), created)


def is_good(stored: StoredImage) -> bool:
    """Whether Glance's own digests agree with those computed when the image was made."""
    agreements = _agreements(marks.kept_image(stored), _by_algorithm(stored.digests))
    return all(agreements) and bool(stored.size_bytes)


# --- the decision table ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """One spec with everything of the inventory that bears on it."""

    spec: Spec
    current: StoredImage | None
    surplus: tuple[StoredImage, ...]
    name_bearers: tuple[StoredImage, ...]
    earlier_by_name: Spec | None
    earlier_by_identity: Spec | None
    desk: _Desk


@dataclass(slots=True)
class _Desk:
    """What all cases of one run share.

    It remembers which entry wanted which name first, and which got which stored image.
    """

    specs: tuple[Spec, ...]
    index: _Index
    newest_lists: Mapping[str, ListMark]
    policy: Policy
    validators: Mapping[str, Validators]
    by_identity: dict[str, Spec] = field(init=False)
    seen_names: dict[str, Spec] = field(default_factory=dict)
    seen_identities: dict[str, Spec] = field(default_factory=dict)
    taken: dict[str, Spec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.by_identity = {spec.identity: spec for spec in reversed(self.specs)}

    def decide_all(self) -> tuple[Decision, ...]:
        return tuple(self.decide(spec) for spec in self.specs)

    def decide(self, spec: Spec) -> Decision:
        case = self._case(spec)
        self.seen_names.setdefault(spec.name, spec)
        self.seen_identities.setdefault(spec.identity, spec)
        answers = (rule(case) for rule in _RULES)
        decision = next((answer for answer in answers if answer is not None), None)
        if decision is None:
            return Upload(spec, "Glance has nothing of the kind")
        return self._take(_with_surplus(decision, case))

    def _take(self, decision: Decision) -> Decision:
        """Give a stored image to one entry only: the first that does something with it."""
        if isinstance(decision, Upload | Refuse):
            return decision
        earlier = self.taken.setdefault(decision.stored.id, decision.spec)
        return decision if earlier is decision.spec else _already_taken(decision, earlier)

    def _case(self, spec: Spec) -> _Case:
        bearers = tuple(self.index.by_name[spec.name])
        claims = self._claims(spec, bearers)
        surplus = tuple(claims[1:])
        if self.policy.by_name:  # what others made under the name is theirs
            surplus = tuple(stored for stored in surplus if _made_for(spec.name, stored))
        return _Case(
            spec=spec,
            current=claims[0] if claims else None,
            surplus=surplus,
            name_bearers=bearers,
            earlier_by_name=self.seen_names.get(spec.name),
            earlier_by_identity=self.seen_identities.get(spec.identity),
            desk=self,
        )

    def _claims(self, spec: Spec, bearers: Sequence[StoredImage]) -> list[StoredImage]:
        if not self.policy.by_name:
            return newest_good(self.index.by_identity[spec.identity])
        ordered = newest_good(bearers)
        return sorted(ordered, key=lambda stored: compare_bytes(spec, stored) is not Bytes.SAME)

    def same_bytes_elsewhere(self, spec: Spec) -> list[StoredImage]:
        """Images with these bytes that no entry of the run claims by identity."""
        found = {
            stored.id: stored
            for digest in spec.expected.digests
            for stored in self.index.by_digest[digest]
            if not (stored.marked and stored.identity in self.by_identity)
            and compare_bytes(spec, stored) is Bytes.SAME
        }
        return list(found.values())


def _made_for(name: str, stored: StoredImage) -> bool:
    """Whether glancing made an image to be the current one of this name."""
    ours = stored.marked and stored.state == State.CURRENT
    return ours and stored.properties.get("glancing_name") == name


def _stays_usable(decision: Skip | Update | Replace, name: str) -> bool:
    """Whether an image of ours, active, bears the name afterwards, so that others may give way."""
    kept = decision.stored
    if isinstance(decision, Replace | Update):
        return True
    return kept.status == "active" and _made_for(name, kept)


def _with_surplus(decision: Decision, case: _Case) -> Decision:
    if not case.surplus or isinstance(decision, Upload | Refuse):
        return decision
    if case.desk.policy.by_name and not _stays_usable(decision, case.spec.name):
        return decision
    if isinstance(decision, Skip) and not decision.stored.state:
        # It is left without our marks: beside a backup of ours it would look like the seed's.
        return decision
    names = ", ".join(stored.id for stored in case.surplus)
    reason = f"{decision.reason}; also claimed by {names}, which become backups"
    return replace(decision, reason=reason, retire=case.surplus)


def _older_list(case: _Case) -> Decision | None:
    """An old copy of a signed list is still signed: what was seen of the list counts."""
    mark = ListMark.parse(case.spec.list_mark)
    if mark is None or case.desk.policy.by_name:
        return None
    noted = case.desk.newest_lists.get(mark.identifier)
    if noted is None or _list_age(mark) >= _list_age(noted):
        return None
    return Refuse(
        case.spec,
        ErrorKind.DOWNGRADE,
        f"downgrade: the list {mark.identifier} is of {mark.created} (version {mark.version}),"
        f" and one of {noted.created} (version {noted.version}) was seen before",
        "fetch the list anew; somebody may be sending an old copy of it",
    )


def _newest_lists(inventory: Iterable[StoredImage]) -> dict[str, ListMark]:
    """The newest copy of each list that is noted on images of ours, backups too."""
    newest: dict[str, ListMark] = {}
    for stored in inventory:
        mark = ListMark.parse(stored.properties.get("glancing_list")) if stored.marked else None
        if mark and _list_age(newest.setdefault(mark.identifier, mark)) < _list_age(mark):
            newest[mark.identifier] = mark
    return newest


def _list_age(mark: ListMark) -> tuple[float, tuple[tuple[int, int, str], ...]]:
    created = mark.created_at
    return (created.timestamp() if created else 0.0, version_key(mark.version))


def _entry_clash(case: _Case) -> Decision | None:
    named, same = case.earlier_by_name, case.earlier_by_identity
    here = _place(case.spec)
    if named is not None:
        reason = f"name taken: {here} wants {case.spec.name!r}, which {_place(named)} wants"
        way_out = _ONE_IMAGE if named is same else "give one of the two another name, or remove it"
        return Refuse(case.spec, ErrorKind.NAME_TAKEN, reason, way_out)
    if same is not None:
        reason = f"{here} is the same image as {_place(same)}"
        return Refuse(case.spec, ErrorKind.AMBIGUOUS, reason, _ONE_IMAGE)
    return None


_ONE_IMAGE = (
    "entries that differ only in user info or query count as one image:"
    " keep one of them, or give each its own name and id="
)


def _name_borne_by_another(case: _Case) -> Decision | None:
    current = case.current
    if current is None or current.name == case.spec.name:
        return None
    others = [bearer for bearer in case.name_bearers if bearer not in case.surplus]
    return _name_taken_in_glance(case.spec, others[0]) if others else None


def _deactivated(case: _Case) -> Decision | None:
    current = case.current
    if current is None or current.status != "deactivated" or case.spec.attributes.deactivated:
        return None
    otherwise = (
        _current_same_bytes(case) or _import_other_bytes(case) or _current_other_version(case)
    )
    if isinstance(otherwise, Skip | Update):
        return Skip(case.spec, current, f"{otherwise.reason}; deactivated by an administrator")
    return Refuse(
        case.spec,
        ErrorKind.DEACTIVATED,
        f"image {current.id} is deactivated, and its bytes are not known to be the wanted ones",
        "reactivate it or delete it, then run again",
        current,
        bytes_unknown=isinstance(otherwise, Replace) and otherwise.bytes_unknown,
    )


def _current_same_bytes(case: _Case) -> Decision | None:
    current = case.current
    if current is None or compare_bytes(case.spec, current) is not Bytes.SAME:
        return None
    return _skip_or_update(case, current, "same bytes")


def _import_other_bytes(case: _Case) -> Decision | None:
    current = case.current
    if current is None or not case.desk.policy.by_name:
        return None
    if compare_bytes(case.spec, current) is Bytes.DIFFERENT:
        return Replace(case.spec, current, "same name, other bytes")
    return _by_validators(case, current)


def _current_other_version(case: _Case) -> Decision | None:
    current = case.current
    if current is None:
        return None
    known = compare_bytes(case.spec, current)
    match _age(case.spec, current):
        case _Age.NEWER:
            return Replace(case.spec, current, _newer(case.spec, current))
        case _Age.OLDER:
            return _downgrade(case.spec, current)
        case _Age.SAME if known is Bytes.DIFFERENT and case.desk.policy.force:
            return Replace(case.spec, current, "same version, other digests, forced")
        case _Age.SAME if known is Bytes.DIFFERENT:
            return _corrupted(case.spec, current)
        case _Age.SAME:
            return _skip_or_update(case, current, "same version, and no digest to compare")
        case _Age.UNKNOWN if known is Bytes.DIFFERENT:
            return Replace(case.spec, current, "other bytes")
        case _Age.UNKNOWN if case.spec.version:
            return Replace(case.spec, current, "bytes unknown, and no version stored")
        case _:
            return _by_validators(case, current)


def _same_bytes_elsewhere(case: _Case) -> Decision | None:
    if case.desk.policy.by_name:
        return None
    found = case.desk.same_bytes_elsewhere(case.spec)
    if not found:
        return None
    if case.desk.policy.adopt and len(found) == 1:
        return _adopt(case, found[0])
    return _ambiguous(
        case.spec, found, "holds the same bytes but was not made for this entry", "--adopt"
    )


def _several_with_the_name(case: _Case) -> Decision | None:
    if len(case.name_bearers) < 2:  # noqa: PLR2004 - several
        return None
    return _ambiguous(case.spec, case.name_bearers, f"bears the name {case.spec.name!r}", None)


def _name_holder_wanted_elsewhere(case: _Case) -> Decision | None:
    for holder in case.name_bearers:
        claimant = case.desk.by_identity.get(holder.identity or "")
        if holder.marked and claimant is not None:
            return _name_taken_in_glance(case.spec, holder)
    return None


def _same_name_other_bytes(case: _Case) -> Decision | None:
    if not case.name_bearers:
        return None
    holder = case.name_bearers[0]
    known = compare_bytes(case.spec, holder)
    match _age(case.spec, holder):
        case _Age.OLDER:
            return _downgrade(case.spec, holder)
        case _Age.SAME if known is Bytes.DIFFERENT:
            return _corrupted(case.spec, holder)
        case _Age.SAME:
            what = "bears name and version, and no digest tells whether it is the same image"
            return _ambiguous(case.spec, (holder,), what, None)
        case _Age.NEWER:
            return Replace(case.spec, holder, f"same name, {_newer(case.spec, holder)}")
        case _Age.UNKNOWN if known is Bytes.UNKNOWN:
            return Replace(case.spec, holder, "same name, bytes unknown")
        case _Age.UNKNOWN:
            return Replace(case.spec, holder, "same name, other bytes")


# From top to bottom as in the README; the first answer wins.
_RULES: tuple[Callable[[_Case], Decision | None], ...] = (
    _older_list,
    _entry_clash,
    _name_borne_by_another,
    _deactivated,
    _current_same_bytes,
    _import_other_bytes,
    _current_other_version,
    _same_bytes_elsewhere,
    _several_with_the_name,
    _name_holder_wanted_elsewhere,
    _same_name_other_bytes,
)

# --- names that pass from one image to another ----------------------------------------------------


def _leaving(decisions: Sequence[Decision]) -> frozenset[str]:
    """Images of ours whose old names other entries want, and that are to have other names."""
    wanted = {d.spec.name for d in decisions if isinstance(d, Refuse)}
    return frozenset(
        image.id
        for d in decisions
        if _gives_its_name_up(d) and d.stored.name in wanted
        for image in (d.stored, *d.retire)
        if image.name == d.stored.name
    )


def _gives_its_name_up(decision: Decision) -> TypeGuard[Update]:
    if not isinstance(decision, Update) or decision.change.name is None:
        return False
    return decision.stored.identity == decision.spec.identity


def _in_turn(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Order what passes names on: first whoever gets a name, then whoever gives it up.

    Where nobody can take it in this run, an image keeps its name: never is there none.
    """
    heirs, present = _heirs(decisions), {d.spec.identity for d in decisions}
    followers: dict[int, list[int]] = defaultdict(list)
    settled = list(decisions)
    for index in [i for i, d in enumerate(decisions) if _gives_its_name_up(d)]:
        first, missing = _first_of(index, decisions, heirs, present)
        if missing is not None:
            settled[index] = _keeping_its_name(decisions[index], missing)
        elif first != index and not isinstance(decisions[first], Skip):
            followers[first].append(index)
    for first, others in followers.items():
        _queue_up(first, others, settled, heirs)
    return tuple(settled)


def _heirs(decisions: Sequence[Decision]) -> dict[int, int]:
    """Who gets the name that another one gives up, by their positions."""
    wanting = {d.spec.name: index for index, d in reversed(list(enumerate(decisions)))}
    return {
        index: wanting[d.stored.name]
        for index, d in enumerate(decisions)
        if _gives_its_name_up(d) and d.stored.name in wanting
    }


def _first_of(
    index: int, decisions: Sequence[Decision], heirs: Mapping[int, int], present: Set[str]
) -> tuple[int, str | None]:
    """Who has to begin so that this one can give its name up, or whose lack prevents it."""
    while True:
        decision = decisions[index]
        successor = decision.spec.successor
        if isinstance(decision, Refuse):
            return index, decision.spec.identity
        if _gives_its_name_up(decision) and successor is not None and successor not in present:
            return index, successor
        if index not in heirs:
            return index, None
        index = heirs[index]


def _queue_up(
    first: int, others: Sequence[int], settled: list[Decision], heirs: Mapping[int, int]
) -> None:
    """Let those that give their names up follow the one that begins, each after its own heir."""
    beginner = settled[first]
    if isinstance(beginner, Skip | Refuse):
        return

    def distance(index: int) -> int:
        steps = 0
        while index != first:
            index, steps = heirs[index], steps + 1
        return steps

    queue = [settled[index] for index in sorted(others, key=distance)]
    updates = tuple(update for update in queue if isinstance(update, Update))
    settled[first] = replace(beginner, making_way=updates)
    for index in others:
        waiting = settled[index]
        if isinstance(waiting, Update):
            settled[index] = replace(waiting, after=beginner.spec)


def _keeping_its_name(decision: Decision, heir: str) -> Decision:
    """Nobody can have the name that this one would give up."""
    if not isinstance(decision, Update):
        return decision
    stored = decision.stored
    return Refuse(
        decision.spec,
        ErrorKind.NAME_TAKEN,
        f"image {stored.id} keeps the name {stored.name!r} until {heir} can have it",
        "see what is said of that one; until then the name would have no image",
        stored,
    )


# --- answers that several rules give --------------------------------------------------------------


def _skip_or_update(case: _Case, stored: StoredImage, reason: str) -> Decision:
    # `import` matches by name what glancing did not make, or made for another entry; neither is
    # changed: the one is not ours, and the other's entry would no longer find it.
    ours = stored.marked and stored.identity == case.spec.identity
    if not ours:
        return Skip(case.spec, stored, reason)
    change = marks.update_change(case.spec, stored)
    if case.spec.attributes.deactivated and stored.status == "active":
        return Update(case.spec, stored, change or ImageChange(), f"{reason}, to be deactivated")
    if change is None:
        return Skip(case.spec, stored, f"{reason}, same properties")
    return Update(case.spec, stored, change, f"{reason}, other {_changed(change)}")


def _by_validators(case: _Case, stored: StoredImage) -> Decision:
    now = str(case.desk.validators.get(case.spec.identity, ""))
    same_source = stored.marked and stored.identity == case.spec.identity
    if now and same_source and now == stored.properties.get("glancing_validators"):
        return _skip_or_update(case, stored, "the source has not changed since")
    return Replace(case.spec, stored, "bytes unknown", bytes_unknown=True)


def _adopt(case: _Case, stored: StoredImage) -> Decision:
    if any(bearer.id != stored.id for bearer in case.name_bearers):
        return _name_taken_in_glance(case.spec, case.name_bearers[0])
    change = marks.update_change(case.spec, stored)
    if change is None:
        return Skip(case.spec, stored, "same bytes, same properties")
    return Update(case.spec, stored, change, "same bytes, adopted")


def _changed(change: ImageChange) -> str:
    fields = {
        "name": change.name,
        "visibility": change.visibility,
        "hidden": change.hidden,
        "protected": change.protected,
        "min_disk": change.min_disk_gib,
        "min_ram": change.min_ram_mib,
        "tags": change.tags,
    }
    told = [field for field, value in fields.items() if value is not None]
    return ", ".join([*told, *sorted(change.properties)])


def _newer(spec: Spec, stored: StoredImage) -> str:
    return f"version {spec.version} is newer than {stored.version}"


def _downgrade(spec: Spec, stored: StoredImage) -> Refuse:
    return Refuse(
        spec,
        ErrorKind.DOWNGRADE,
        f"downgrade: version {spec.version} is older than {stored.version} of image {stored.id}",
        "remove the newer image from Glance if the older one is really wanted",
        stored,
    )


def _corrupted(spec: Spec, stored: StoredImage) -> Refuse:
    return Refuse(
        spec,
        ErrorKind.CORRUPTED,
        f"corrupted: version {spec.version} has other bytes than image {stored.id}"
        " of the same version",
        "ask the publisher: one version must not have two contents",
        stored,
    )


def _name_taken_in_glance(spec: Spec, bearer: StoredImage) -> Refuse:
    return Refuse(
        spec,
        ErrorKind.NAME_TAKEN,
        f"name taken in Glance: image {bearer.id} bears the name {spec.name!r}",
        "rename or remove that image, or run again once its own entry has renamed it",
        bearer,
    )


def _already_taken(decision: Skip | Update | Replace, earlier: Spec) -> Refuse:
    return Refuse(
        decision.spec,
        ErrorKind.AMBIGUOUS,
        f"ambiguous: image {decision.stored.id} goes to {_place(earlier)} in this run",
        "run again, or take one of the two off the list",
        decision.stored,
    )


def _ambiguous(spec: Spec, found: Sequence[StoredImage], what: str, flag: str | None) -> Refuse:
    ids = ", ".join(f"{stored.id} ({stored.name})" for stored in found)
    way_out = f"rename or remove it, or take it over with {flag}" if flag else "rename or remove it"
    return Refuse(spec, ErrorKind.AMBIGUOUS, f"ambiguous: image {ids} {what}", way_out, found[0])


def _place(spec: Spec) -> str:
    if spec.origin.list_name is None:
        return spec.descriptor
    return f"{spec.descriptor} ({spec.origin.list_name}:{spec.origin.line})"
