"""Makes the project's own environment, so that one command is enough on a fresh machine.

Runs on the system's Python with nothing installed. The environment lies in ``.venv`` and is made
anew when the project's dependencies change.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
_DONE = VENV / "glancing-complete"
_OLDEST = (3, 11)


def ensure_environment() -> None:
    """Go on in the project's environment; make it first where that is needed."""
    if Path(sys.prefix).resolve() == VENV.resolve() and _is_complete():
        return
    if sys.version_info < _OLDEST:
        sys.exit("glancing needs Python 3.11 or newer; say for example: python3.13 -m tests")
    if not _is_complete():
        _make()
    module = _started_module()
    os.execv(PYTHON, [str(PYTHON), "-m", module, *sys.argv[1:]])


def _started_module() -> str:
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec else "tests"
    return name.removesuffix(".__main__")


def _is_complete() -> bool:
    return _DONE.exists() and PYTHON.exists() and _DONE.read_text().strip() == _project_state()


def _project_state() -> str:
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()


def _make() -> None:
    print("Making the environment .venv (about a minute) …", file=sys.stderr)
    if not (PYTHON.exists() and (VENV / "bin" / "pip").exists()):
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
        if made.returncode != 0:
            sys.exit("Python cannot make virtual environments: on Debian, install python3-venv")
    # An environment that is there is only brought up to date: somebody may be working in it.
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--editable", f"{ROOT}[dev]"], check=False).returncode != 0:
        sys.exit("pip could not install what pyproject.toml asks for; what it said stands above")
    _DONE.write_text(_project_state() + "\n")
