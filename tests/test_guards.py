"""What the code may not contain, anywhere: checked on its syntax, so that no wording hides it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(ROOT.joinpath("glancing").rglob("*.py"))
ALL_SOURCES = [*SOURCES, *sorted(ROOT.joinpath("tests").rglob("*.py"))]
BROAD = {"Exception", "BaseException"}
# Where everything is caught: once per image, once per process, and where a thread hands what it
# met to the one that waits for it.
CATCHERS = {
    ("carrier.py", "carry_out"),
    ("wiring.py", "carry_out"),
    ("crew.py", "_one"),
    ("pipeline/_body.py", "_produce"),
}


def broad_catchers(path: Path) -> Iterator[str]:
    """Functions with a broad ``except`` that does not raise again."""
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and is_broad(node) and not raises_again(node):
                yield function.name


def is_broad(handler: ast.ExceptHandler) -> bool:
    named = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        if (handler.type)
        else BROAD
    )
    return bool(named & BROAD)


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def keywords(path: Path) -> Iterator[tuple[str, object]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            yield node.arg or "", node.value.value


def test_everything_is_caught_in_few_places() -> None:
    found = {
        (str(path.relative_to(ROOT / "glancing")), name)
        for path in SOURCES
        for name in broad_catchers(path)
    }
    assert found == CATCHERS


@pytest.mark.parametrize("forbidden", [("verify", False), ("shell", True)])
def test_no_call_says(forbidden: tuple[str, object]) -> None:
    """Neither certificates unchecked nor a shell between us and a program."""
    assert [str(path) for path in ALL_SOURCES if forbidden in set(keywords(path))] == []


def test_no_code_is_made_from_data() -> None:
    """Nothing that runs what it reads: pickles, unsafe YAML, ``eval``."""
    words = ("pickle", "marshal", "yaml.load(", "yaml.unsafe", "eval(", "exec(")
    found = [(path.name, word) for path in SOURCES for word in words if word in path.read_text()]
    assert found == []


@pytest.mark.parametrize(
    ("text", "broad"),
    [
        ("except:\n  pass", True),
        ("except Exception as e:\n  print(e)", True),
        ("except (OSError, BaseException):\n  pass", True),
        ("except Exception:\n  raise", False),
        ("except OSError:\n  pass", False),
    ],
)
def test_the_guard_sees(text: str, broad: bool, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"def f():\n try:\n  pass\n {text}".replace("\n  ", "\n   "))
    assert bool(list(broad_catchers(path))) == broad
