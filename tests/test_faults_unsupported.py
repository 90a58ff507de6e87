"""What glancing cannot verify or unpack it refuses: nothing of it is ever taken on trust.

Faults 34 and 35: lists whose signature would have to be verified are not read by ``sync``, and not
fetched by ``import``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imagelist_documents import HEPIX_IMAGE, hepix, signed
from tests.program import Program
from tests.servers import ImageServer

LISTS: dict[str, Callable[[], bytes]] = {
    "unsigned": hepix,
    "signed": lambda: signed(hepix()),
    "changed": lambda: signed(hepix()).replace(b"Small image", b"Other image"),
    "expired": lambda: signed(hepix(**{"dc:date:expires": "2001-01-01T00:00:00Z"})),
    "from the future": lambda: signed(hepix(**{"dc:date:created": "2099-01-01T00:00:00Z"})),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_would_have_to_be_verified_are_refused(name: str, tmp_path: Path) -> None:
    """Faults 34 and 35: no word of a list counts whose signature nobody looked at."""
    data = LISTS[name]()
    (tmp_path / "list").write_bytes(data)
    with ImageServer({"/list": data}) as server:
        program = Program(tmp_path)
        identifier = str(HEPIX_IMAGE["dc:identifier"])
        for words in (
            ("sync", "-l", "list"),
            ("sync", "-l", server.url("/list")),
            ("import", "-d", "-c", server.url("/list"), identifier),
        ):
            assert program.run(*words).exit_code == 2
