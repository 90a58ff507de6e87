"""What the demo shows, act by act; after each act Glance is looked into and compared.

An operator's list names four images: two by marketplace ID, one by URL, one by the path of its
metadata. They are brought into Glance, found unchanged, one is replaced by a newer version, and one
is refused because its publisher's file is not what its metadata says.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from tests import images
from tests.demo.catalogue import DemoError, Held, Record, Watcher, table
from tests.demo.marketplace import Marketplace, Release, metadata
from tests.demo.program import Program, Run
from tests.sandbox import Sandbox

ALMA = Release(
    identifier="OqgRyfvKkbqOJ3U6pXsb6pgVTgH",
    title="Example-AlmaLinux-9",
    os="almalinux",
    os_version="9",
    version="20260302",
    disk_format="qcow2",
    data=images.qcow2() + images.noise(3 * images.MIB, seed=1),
    gzipped=True,
)
ALMA_NEWER = replace(
    ALMA, version="20260601", data=images.qcow2() + images.noise(4 * images.MIB, seed=2)
)
DEBIAN = Release(
    identifier="-Zk3vQ_x7LmT0aYbN5cWd8eRfGu",
    title="Example-Debian-13",
    os="debian",
    os_version="13",
    version="20260302",
    disk_format="raw",
    data=images.disk() + images.noise(5 * images.MIB, seed=3),
)
DEBIAN_DAMAGED = replace(
    DEBIAN, version="20260601", data=images.disk() + images.noise(5 * images.MIB, seed=4)
)
RESCUE = Release(
    identifier="BtJw8sVnq2Ke_LzR4yUiX0mDhCa",
    title="Our-Rescue-CD",
    os="rescue",
    os_version="1",
    version="7",
    disk_format="iso",
    data=images.iso(),
)
TINY = Held("tiny-1.2", "qcow2", images.qcow2() + images.noise(images.MIB, seed=5))

_LIST = """\
# The images of our cloud, one on each line.

# two of the marketplace, by their IDs
{alma}
{debian}

# one by its URL: nobody publishes digests of it
{tiny_url}

# one of our own, by its metadata beside this list
own/rescue.xml
"""


def play(sandbox: Sandbox, out: TextIO, *, sabotage: bool = False) -> str:
    """Play all acts on a sandbox whose project has no images; what was shown, in a sentence.

    DemoError when Glance or glancing is not as it should be, SandboxError when the cloud fails.
    ``sabotage`` deletes an image before the last check.
    """
    with (
        tempfile.TemporaryDirectory(prefix="glancing-demo-") as name,
        Marketplace() as marketplace,
    ):
        directory = Path(name)
        program, watcher = Program(sandbox, directory), Watcher(sandbox)
        stage = Stage(marketplace, program, watcher, directory, out)
        stage.prepare()
        stage.plan()
        stage.fill()
        stage.repeat()
        stage.renew()
        stage.refuse()
        if sabotage:
            stage.sabotage()
        return stage.end()


def held(release: Release) -> Held:
    """A release as Glance should hold it."""
    return Held(release.title, release.disk_format, release.data, release.version)


def backup(release: Release) -> Held:
    """A release as Glance should keep it once a newer one has taken its place."""
    return replace(held(release), name=f"{release.title}_old", hidden=True)


FIRST = (held(ALMA), held(DEBIAN), TINY, held(RESCUE))
LATER = (held(ALMA_NEWER), backup(ALMA), held(DEBIAN), TINY, held(RESCUE))


@dataclass(frozen=True, slots=True)
class Stage:
    """The acts, with all that they need."""

    marketplace: Marketplace
    program: Program
    watcher: Watcher
    directory: Path
    out: TextIO

    @property
    def _list(self) -> Path:
        return self.directory / "vmlist"

    @property
    def _backups(self) -> Path:
        return self.directory / "backups"

    # --- the acts ---

    def prepare(self) -> None:
        """The publisher publishes, the operator writes a list."""
        self._title("Before: a marketplace, and a list of images")
        for release in (ALMA, DEBIAN):
            self.marketplace.publish(release)
        own = self.directory / "own"
        own.mkdir()
        (own / RESCUE.file_name).write_bytes(RESCUE.data)
        (own / "rescue.xml").write_text(metadata(RESCUE, RESCUE.file_name), encoding="utf-8")
        tiny_url = self.marketplace.publish_file(f"{TINY.name}.qcow2", TINY.data)
        content = _LIST.format(alma=ALMA.identifier, debian=DEBIAN.identifier, tiny_url=tiny_url)
        self._list.write_text(content, encoding="utf-8")
        self._backups.mkdir()
        self._say(f"A marketplace with metadata is at {self.marketplace.metadata_url}.")
        self._say(f"{ALMA.title} is published as a gzipped qcow2, {DEBIAN.title} as a raw disk")
        self._say("whose ID begins with a hyphen. The operator's list, vmlist:")
        self._block(content.splitlines())

    def plan(self) -> None:
        """Nothing is changed by a plan."""
        self._title("1. What would be done?")
        changes = self.watcher.changes_asked_for()
        self._run("plan", outcomes={held.name: "planned" for held in FIRST})
        self._check(())
        self._expect(self.watcher.changes_asked_for() == changes, "the plan changed Glance")
        self._say("Nothing has been changed: Glance was asked for its list only.")

    def fill(self) -> None:
        """The first sync uploads everything."""
        self._title("2. The first sync brings all images in")
        run = self._sync({held.name: "uploaded" for held in FIRST})
        for event in run.events:
            if event.get("event") == "image.unverified":
                self._say(f"Warned: {event['name']} is unverified, {event['reason']}.")
        self._check(FIRST)
        self._say("Each is in Glance, byte for byte as published.")

    def repeat(self) -> None:
        """The second sync finds nothing to do."""
        self._title("3. The same sync again finds nothing to do")
        before, changes = self.watcher.records(), self.watcher.changes_asked_for()
        self._sync({held.name: "unchanged" for held in FIRST})
        self._check(FIRST)
        self._check_untouched(before)
        self._expect(self.watcher.changes_asked_for() == changes, "the second sync changed Glance")
        self._say("No request that changes anything has reached Glance.")

    def renew(self) -> None:
        """A newer version takes the place of the old one, which stays as the backup."""
        self._title(f"4. A newer {ALMA.title} is published")
        before = self.watcher.records()
        self.marketplace.publish(ALMA_NEWER)
        self._say(f"The metadata of {ALMA.identifier} now has version {ALMA_NEWER.version}.")
        names = [held.name for held in FIRST]
        run = self._sync(dict.fromkeys(names, "unchanged") | {ALMA.title: "replaced"})
        self._check(LATER)
        self._check_untouched([record for record in before if record["name"] != ALMA.title])
        self._check_backup(run, _id_of(before, ALMA.title))
        self._say(f"The previous version is kept in Glance, hidden, as {ALMA.title}_old.")
        self._say("Copies in the backup directory:")
        self._block(f"{path.name}  {path.stat().st_size}" for path in self._copies())

    def refuse(self) -> None:
        """A version whose file is not what its metadata says leaves the old image in its place."""
        self._title(f"5. A corrupted {DEBIAN.title} is published")
        before = self.watcher.records()
        self.marketplace.publish(DEBIAN_DAMAGED, damaged=True)
        self._say(
            f"Its metadata has version {DEBIAN_DAMAGED.version}; in the file one byte is bad."
        )
        names = [held.name for held in FIRST]
        expected = dict.fromkeys(names, "unchanged") | {DEBIAN.title: "failed"}
        run = self._sync(expected, exit_code=1)
        error = _row(run, DEBIAN.title)["error"]
        self._expect(error["kind"] == "wrong-digest", f"the error is {error['kind']}")
        self._check(LATER)
        self._check_untouched(before)
        self._say("Refused, and sync says so with exit code 1. The old image is untouched, the")
        self._say("others were looked after, and nothing half-made was left behind.")

    def sabotage(self) -> None:
        """Something goes wrong that nobody told of: the last check has to find it."""
        self._title("Sabotage: an image is deleted behind glancing's back")
        self.watcher.delete(_id_of(self.watcher.records(), DEBIAN.title))

    def end(self) -> str:
        """The last look at everything that should be there now."""
        self._title("After: what Glance holds, and what it should hold")
        self._check(LATER)
        copies = [path for path in self._copies() if path.read_bytes() == ALMA.data]
        self._expect(bool(copies), f"the backup directory has no copy of {ALMA.title}")
        return (
            f"Glance holds the {len(FIRST)} images of the list, byte for byte, "
            f"and the previous version of the one that was replaced"
        )

    # --- glancing ---

    def _sync(self, outcomes: Mapping[str, str], exit_code: int = 0) -> Run:
        return self._run("sync", "-b", str(self._backups), outcomes=outcomes, exit_code=exit_code)

    def _run(
        self, command: str, *more: str, outcomes: Mapping[str, str], exit_code: int = 0
    ) -> Run:
        """Run a command on the list, show what it says, and compare that with what is due."""
        words = [command, "-l", str(self._list), "-u", self.marketplace.metadata_url, *more]
        shown = [word.replace(f"{self.directory}/", "") for word in words]
        self._say(f"$ glancing {shlex.join(shown)}")
        started_s = time.monotonic()
        run = self.program.run(*words)
        self._block(_lines_of(run.result))
        self._say(f"Exit code {run.exit_code}, after {time.monotonic() - started_s:.1f} s.")
        self._expect(run.exit_code == exit_code, f"exit code {run.exit_code}, not {exit_code}")
        found = {image["name"]: image["outcome"] for image in run.result["images"]}
        self._expect(found == outcomes, f"glancing reports {found}, not {outcomes}")
        return run

    # --- what has to be so ---

    def _check(self, wanted: Sequence[Held]) -> None:
        """Show what Glance holds; DemoError unless that is what is wanted, and nothing else."""
        self._say("Glance holds:")
        self._block(table(self.watcher.records()))
        differences = self.watcher.differences(wanted)
        self._expect(not differences, "; ".join(differences))

    def _check_untouched(self, before: Iterable[Record]) -> None:
        """DemoError unless these records are now as they were, times and all."""
        now = {record["id"]: record for record in self.watcher.records()}
        touched = [record["name"] for record in before if now.get(record["id"]) != record]
        self._expect(not touched, f"touched without need: {', '.join(touched)}")

    def _check_backup(self, run: Run, old_id: str) -> None:
        """DemoError unless the backup is the very image that was current, here and as a copy."""
        row = _row(run, ALMA.title)
        kept_id = _id_of(self.watcher.records(), f"{ALMA.title}_old")
        self._expect(kept_id == old_id == row["backup_id"], "the backup is another image")
        copies = [path for path in self._copies() if path.read_bytes() == ALMA.data]
        told = [Path(row["backup_path"] or "")]
        self._expect(copies == told, f"the copy should be {told}, found: {copies}")

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            raise DemoError(otherwise)

    def _copies(self) -> list[Path]:
        return sorted(self._backups.iterdir())

    # --- what is shown ---

    def _title(self, text: str) -> None:
        self._say(f"\n{text}\n{'=' * len(text)}")

    def _block(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(f"    {line}".rstrip())

    def _say(self, line: str) -> None:
        print(line, file=self.out, flush=True)


def _lines_of(result: Mapping[str, Any]) -> list[str]:
    """What a result says of each image."""
    lines = []
    for image in result["images"]:
        lines.append(
            f"{image['name']}: {image['outcome']} ({image['decision']}: {image['reason']})"
        )
        if image["error"]:
            lines.append(f"  {image['error']['kind']}: {image['error']['message']}")
            lines += [f"  {image['error']['hint']}"] if image["error"]["hint"] else []
    return lines or [str(result.get("error"))]


def _row(run: Run, name: str) -> Mapping[str, Any]:
    rows: list[Mapping[str, Any]] = run.result["images"]
    return next(row for row in rows if row["name"] == name)


def _id_of(records: Iterable[Record], name: str) -> str:
    """The id of the image of a name; DemoError where there is none."""
    found = [str(record["id"]) for record in records if record["name"] == name]
    if not found:
        raise DemoError(f"there is no image {name}")
    return found[0]
