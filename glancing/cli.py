"""The command line: flags, their environment variables, and what they mean for a run.

Every flag of every command has a variable ``GLANCING_<OPTION>``; the flag wins. The letters are
those of the seed's scripts. Anything slow to import waits until a command needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from glancing import __version__
from glancing.errors import ConfigError, ErrorKind, ExitCode, ImageListError
from glancing.model import (
    ALGORITHMS,
    Filter,
    ListFormat,
    LocalPath,
    Location,
    Options,
    Reading,
    Trust,
    Url,
)
from glancing.sharding import Shard

if TYPE_CHECKING:
    from glancing.addresses import Network

DEFAULT_LIST = "/etc/glancing/vmlist"
DEFAULT_MARKETPLACE = "https://marketplace.stratuslab.eu/marketplace/metadata"
_ID_ARGUMENT = re.compile(r"-[A-Za-z0-9_-]{26}")
_SHIELD = "\0"  # no argument of a process can contain it
_URL = re.compile(r"(?i)https?://")
_SIZE = re.compile(r"(\d+)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE)

F = TypeVar("F", bound=Callable[..., Any])


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code."""
    try:
        result = glancing.main(list(arguments), prog_name="glancing", standalone_mode=False)
    except click.ClickException as error:
        from glancing.wiring import refuse_usage  # noqa: PLC0415

        command = next((word for word in arguments if word in glancing.commands), "")
        return refuse_usage(command, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return int(result or ExitCode.OK)


# --- what an argument may be ----------------------------------------------------------------------


class _Command(click.Command):
    """A command to which a marketplace ID is never an option, though IDs may begin with ``-``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        shielded = [_SHIELD + arg if _ID_ARGUMENT.fullmatch(arg) else arg for arg in args]
        rest = super().parse_args(ctx, shielded)
        ctx.params = {name: _unshield(value) for name, value in ctx.params.items()}
        return rest


def _unshield(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_unshield(item) for item in value)
    return value.removeprefix(_SHIELD) if isinstance(value, str) else value


class _LocationType(click.ParamType[Location]):
    """A path or file:// URL of this machine, or an http or https URL."""

    name = "path or URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Location:
        text = _unshield(value)
        if _URL.match(text):
            return Url(text)
        if text.lower().startswith("file:"):
            return LocalPath(Path(self._file(text, param, ctx)))
        if not text or "://" in text:
            self.fail("neither a path nor an http or https URL", param, ctx)
        return LocalPath(Path(text))

    def _file(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from glancing.imagelist import file_path  # noqa: PLC0415

        try:
            return file_path(text)
        except ImageListError as error:
            self.fail(f"{error.message}; write {error.hint}", param, ctx)


class _NameType(click.ParamType[str]):
    """A name that Glance can take, looked at before anything is downloaded for it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from glancing.imagelist import image_name  # noqa: PLC0415

        text = _unshield(value)
        try:
            return image_name(text, "an empty text") if text else ""
        except ImageListError as error:
            self.fail(error.message, param, ctx)


class _ShardType(click.ParamType[Shard]):
    """One part of several: ``I/N``."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _UrlType(click.ParamType[Url]):
    """An http or https URL."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Url:
        if not _URL.match(value):
            self.fail("not an http or https URL", param, ctx)
        return Url(value)


class _FilterType(click.ParamType[Filter]):
    """A condition on the items of simplestreams."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Filter:
        try:
            return value if isinstance(value, Filter) else Filter.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _NetworkType(click.ParamType["Network"]):
    """A network in CIDR form, or a single address."""

    name = "CIDR"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Network:
        from glancing.addresses import parse_network  # noqa: PLC0415

        try:
            return parse_network(str(value))
        except ValueError:
            self.fail(f"{value!r} is no network such as 10.0.0.0/8", param, ctx)


class _NameOfCertificate(click.ParamType[str]):
    """A distinguished name in slash form."""

    name = "/DC=…/CN=…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from glancing.names import parse_name  # noqa: PLC0415

        if parse_name(str(value)) is None:
            self.fail(f"{value!r} is no name such as /DC=org/DC=example/CN=Name", param, ctx)
        return str(value)


class _SizeType(click.ParamType[int]):
    """Bytes, or a number with K, M, G or T for powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is no size such as 500M or 20G", param, ctx)
        return int(match[1]) << 10 * (" KMGT".index((match[2] or " ").upper()))


# --- flags ----------------------------------------------------------------------------------------


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    """An option with its environment variable."""
    long_name = next(name for name in names if name.startswith("--"))
    variable = "GLANCING_" + long_name.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **settings)


def _together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_directory = click.Path(file_okay=False, path_type=Path)

_common = _together(
    _option(
        "-u",
        "--url",
        "marketplace",
        type=_UrlType(),
        default=DEFAULT_MARKETPLACE,
        show_default=True,
        help="Base URL of the marketplace's metadata.",
    ),
    _option(
        "--require-digest",
        type=click.Choice(["any", *ALGORITHMS]),
        help="Refuse images without a published digest, or with none as strong as this one.",
    ),
    _option(
        "--disk-format",
        metavar="FORMAT|detected",
        help="Your word on the disk format, in place of the list's; the bytes must agree.",
    ),
    _option("-f", "--force", is_flag=True, help="Import in spite of wrong digests or size."),
    _option("-D", "--no-checksum", is_flag=True, help="Do not check digests."),
    _option(
        "--max-size",
        type=_SizeType(),
        default="1T",
        show_default=True,
        help="The most that an image may have, published or unpacked.",
    ),
    _option(
        "--jobs",
        type=click.IntRange(1, 64),
        default=2,
        show_default=True,
        help="How many images to work on at once.",
    ),
    _option(
        "--allow-network",
        type=_NetworkType(),
        multiple=True,
        help="A private network that remote lists and redirects may name; may be repeated.",
    ),
    _option(
        "--source-auth",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file of logins for sources, by host.",
    ),
    _option(
        "--keyring",
        type=click.Path(dir_okay=False, path_type=Path),
        help="OpenPGP keys; checksum files have to be signed by one of them.",
    ),
    _option("--netrc", is_flag=True, help="Use .netrc for sources that need a login."),
    _option("-v", "--verbose", is_flag=True, help="More events."),
)

_writing = _together(
    _option("-b", "--backup-dir", type=_directory, help="Keep a copy of replaced images there."),
    _option("-d", "--dry-run", is_flag=True, help="Download and verify, and change nothing."),
    _option("-k", "--keep-temps", is_flag=True, help="Keep downloaded files; implies --spool."),
    _option(
        "--image-timeout",
        type=click.IntRange(60),
        default=7200,
        show_default=True,
        help="Seconds that one image may take.",
    ),
    _option("--spool", is_flag=True, help="Download to the work directory before uploading."),
    _option(
        "--work-dir",
        type=_directory,
        help="Where to spool; the system's temporary folder if not given.",
    ),
)

_lists = _together(
    _option(
        "-l",
        "--vmlist",
        "lists",
        type=_LocationType(),
        multiple=True,
        default=(DEFAULT_LIST,),
        show_default=True,
        help="An image list: a file, URL or folder; may be repeated.",
    ),
    _option(
        "--format",
        "list_format",
        type=click.Choice([each.value for each in ListFormat]),
        help="What the lists are, where their content does not tell.",
    ),
    _option(
        "--filter",
        "filters",
        type=_FilterType(),
        multiple=True,
        help="Which items of simplestreams: KEY=VALUE, !=, KEY~REGEX or !~; all must hold.",
    ),
    _option(
        "--newest",
        type=click.IntRange(1),
        metavar="N",
        help="Only the newest N versions of each product of simplestreams.",
    ),
    _option("--only", multiple=True, metavar="NAME|ID", help="Act on these entries alone."),
    _option(
        "--shard",
        type=_ShardType(),
        default="0/1",
        help="Act on one part of N, counted from 0; the parts share the list between them.",
    ),
    _option(
        "--ca-dir",
        type=click.Path(path_type=Path),
        help="Certificate authorities of signed lists: a hashed directory, or a file.",
    ),
    _option("--endorser-dn", type=_NameOfCertificate(), help="Who has to sign lists: /DC=…/CN=…"),
    _option("--endorser-ca", type=_NameOfCertificate(), help="Who has to certify the signer."),
    _option("--list-id", multiple=True, help="dc:identifier that lists have; may be repeated."),
    _option(
        "--allow-unsigned-list", is_flag=True, help="Take HEPiX lists that nobody signed, or badly."
    ),
    _option("--adopt", is_flag=True, help="Take over images of the same bytes made by others."),
)


# --- commands -------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="glancing")
def glancing() -> None:
    """Keep an OpenStack Glance catalogue equal to published VM image lists."""


@glancing.command("sync", cls=_Command)
@_lists
@_common
@_writing
def sync(**flags: Any) -> int:
    """Make Glance hold all images of the lists."""
    return _run_lists("sync", flags)


@glancing.command("plan", cls=_Command)
@_lists
@_common
def plan(**flags: Any) -> int:
    """Say what sync would do, and change nothing."""
    return _run_lists("plan", flags)


@glancing.command("import", cls=_Command)
@click.argument("descriptor")
@_option("-n", "--name", type=_NameType(), help="The image's name in Glance.")
@_option("-s", "--sums", help="Digests separated by colons; algorithms go by their length.")
@_option(
    "-S",
    "--sums-files",
    type=_LocationType(),
    multiple=True,
    help="A checksum file or URL; may be repeated.",
)
@_option("-c", "--cern-list", type=_LocationType(), help="A HEPiX list that has DESCRIPTOR.")
@_common
@_writing
def import_(**flags: Any) -> int:
    """Make Glance hold one image: a file, URL, marketplace ID or metadata file."""
    from glancing import digests, wiring  # noqa: PLC0415
    from glancing.catalogue import ImportRequest  # noqa: PLC0415
    from glancing.report import as_document  # noqa: PLC0415

    def run(session: wiring.Session) -> dict[str, Any]:
        options = _options(flags)
        request = ImportRequest(
            descriptor=flags["descriptor"],
            name=flags["name"] or None,
            sums=digests.parse_sums(flags["sums"] or ""),
            sums_files=flags["sums_files"],
            cern_list=flags["cern_list"],
        )
        job = _job(session, "import", flags, options, cloud_needed=not options.dry_run)
        return as_document(job.import_one(request))

    return wiring.carry_out("import", run, verbose=flags["verbose"])


@glancing.command("hash", cls=_Command)
@click.argument("files", nargs=-1, required=True)
@_option("-d", "--directory", type=_directory, default=".", help="Where to write the sums files.")
@_option("-f", "--overwrite", is_flag=True, help="Overwrite sums files that exist.")
@_option("-v", "--verbose", is_flag=True, help="More events.")
def hash_(files: tuple[str, ...], directory: Path, *, overwrite: bool, verbose: bool) -> int:
    """Write MD5SUMS, SHA1SUMS, … of files that are read once."""
    from glancing import wiring  # noqa: PLC0415

    def run(session: wiring.Session) -> dict[str, Any]:
        return session.hash_files(files, directory, overwrite=overwrite)

    return wiring.carry_out("hash", run, verbose=verbose)


def _run_lists(command: str, flags: dict[str, Any]) -> int:
    from glancing import wiring  # noqa: PLC0415
    from glancing.report import as_document  # noqa: PLC0415

    def run(session: wiring.Session) -> dict[str, Any]:
        job = _job(session, command, flags, _options(flags))
        return as_document(job.sync(flags["lists"]))

    return wiring.carry_out(command, run, verbose=flags["verbose"])


def _job(
    session: Any,
    command: str,
    flags: dict[str, Any],
    options: Options,
    *,
    cloud_needed: bool = True,
) -> Any:
    from glancing.carrier import Mode  # noqa: PLC0415

    mode = Mode.PLAN if command == "plan" else Mode.VERIFY if options.dry_run else Mode.APPLY
    return session.job(
        command,
        options,
        mode=mode,
        marketplace=flags["marketplace"],
        reading=_reading(flags),
        work_dir=flags.get("work_dir"),
        backup_dir=flags.get("backup_dir"),
        access=session.access(flags["allow_network"], flags["source_auth"], netrc=flags["netrc"]),
        signed=session.signed_documents(flags["keyring"], flags.get("ca_dir"), _trust(flags)),
        cloud_needed=cloud_needed,
    )


def _trust(flags: dict[str, Any]) -> Trust:
    """Whose lists are believed."""
    return Trust(
        endorser_dn=flags.get("endorser_dn"),
        endorser_ca=flags.get("endorser_ca"),
        list_ids=flags.get("list_id", ()),
        allow_unsigned=flags.get("allow_unsigned_list", False),
    )


def _reading(flags: dict[str, Any]) -> Reading:
    name = flags.get("list_format")
    return Reading(
        format=ListFormat(name) if name else None,
        filters=flags.get("filters", ()),
        newest=flags.get("newest"),
    )


def _options(flags: dict[str, Any]) -> Options:
    """What the flags of a command mean; ConfigError when they exclude each other."""
    if flags["force"] and flags.get("dry_run"):
        raise _excluding("--force", "--dry-run")
    if flags["no_checksum"] and flags["require_digest"]:
        raise _excluding("--no-checksum", "--require-digest")
    return Options(
        dry_run=flags.get("dry_run", False),
        force=flags["force"],
        verify_digests=not flags["no_checksum"],
        spool=flags.get("spool", False) or flags.get("keep_temps", False),
        keep_temps=flags.get("keep_temps", False),
        adopt=flags.get("adopt", False),
        backup=flags.get("backup_dir") is not None,
        require_digest=flags["require_digest"],
        disk_format=flags["disk_format"],
        jobs=flags["jobs"],
        only=flags.get("only", ()),
        shard=flags.get("shard", Shard()),
        max_size_bytes=flags["max_size"],
        image_timeout_s=float(flags.get("image_timeout", 7200)),
    )


def _excluding(one: str, other: str) -> ConfigError:
    return ConfigError(f"{one} and {other} exclude each other", kind=ErrorKind.USAGE)
