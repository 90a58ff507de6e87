"""The manifests of ``k8s/`` as a cluster would get them, and as flags of ``docker run``.

The container tests take their flags from here, so that what is tested is what is shipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

KUSTOMIZATIONS = Path(__file__).resolve().parent.parent / "k8s"
OVERLAYS = ("one-shot", "backups", "sharded", "clouds-yaml")

Document = dict[str, Any]
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}
_QUANTITY = re.compile(r"(\d+)([A-Za-z]*)")


# --- rendering ------------------------------------------------------------------------------------


def directory(name: str) -> Path:
    """The folder of ``base`` or of an overlay."""
    return KUSTOMIZATIONS / "base" if name == "base" else KUSTOMIZATIONS / "overlays" / name


def kubectl() -> str:
    """The command; the test is skipped where there is none, and fails where all have to run."""
    found = shutil.which(os.environ.get("KUBECTL", "kubectl"))
    if found:
        return found
    missing = "kubectl renders the manifests, and is not on this machine"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing}; put it on PATH, or say where it is in KUBECTL")
    pytest.skip(missing)


def render(folder: Path) -> list[Document]:
    """The documents of a kustomization; its deprecation warnings are kubectl's own affair."""
    made = subprocess.run(
        [kubectl(), "kustomize", str(folder)], check=False, capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.fail(f"kubectl kustomize {folder.name}: {made.stderr}")
    return parse(made.stdout)


@cache
def _rendered(name: str) -> list[Document]:
    return render(directory(name))


def manifests(name: str) -> list[Document]:
    """The documents of ``base`` or of an overlay, each time anew and free to be changed."""
    return deepcopy(_rendered(name))


def parse(text: str) -> list[Document]:
    """All documents of a text."""
    return [document for document in yaml.safe_load_all(text) if document]


# --- finding one's way ----------------------------------------------------------------------------


def of_kind(documents: Iterable[Document], *kinds: str) -> Document:
    """The only document of these kinds."""
    (found,) = [document for document in documents if document["kind"] in kinds]
    return found


def job_spec(documents: Iterable[Document]) -> Document:
    """What the CronJob or the Job says of one run."""
    spec: Document = of_kind(documents, "CronJob", "Job")["spec"]
    template: Document = spec.get("jobTemplate", {"spec": spec})["spec"]
    return template


def pod_spec(documents: Iterable[Document]) -> Document:
    """The only pod of the documents."""
    spec: Document = job_spec(documents)["template"]["spec"]
    return spec


def container(documents: Iterable[Document]) -> Document:
    """The only container of the only pod."""
    (only,) = pod_spec(documents)["containers"]
    found: Document = only
    return found


def quantity(text: str | int) -> int:
    """Bytes of a quantity such as ``256Mi``."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes")
    return int(match[1]) * _UNITS[match[2]]


def cores(text: str | int) -> float:
    """Cores of a quantity such as ``2`` or ``250m``."""
    text = str(text)
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


# --- the same for docker run ----------------------------------------------------------------------


def hardening(
    container: Document, pod: Document, *, scratch: Path | None = None, user: str | None = None
) -> list[str]:
    """The flags of ``docker run`` that hold a container to what its manifest states.

    An ``emptyDir`` becomes a tmpfs, whose pages count against the memory limit; with ``scratch`` it
    is a folder made in there, on disk as in a cluster. ``user`` takes the place of the manifest's,
    as OpenShift does. The seccomp profile is Docker's default, and so ``RuntimeDefault`` has no
    flag. Other volumes (lists, secrets, backups) are for the caller to mount. What cannot be
    translated is an error, so that no promise of the manifest is left untested in silence.
    """
    return [
        *_pod_flags(pod, user),
        *_container_flags(container["securityContext"]),
        *_resource_flags(container["resources"]["limits"]),
        *_scratch_flags(container, pod, scratch),
    ]


def environment(container: Document) -> list[str]:
    """The flags for the variables that the manifest itself sets."""
    return [f"--env={variable['name']}={variable['value']}" for variable in container["env"]]


def _pod_flags(pod: Document, user: str | None) -> list[str]:
    context = dict(pod["securityContext"])
    flags = [f"--user={user or '{runAsUser}:{runAsGroup}'.format(**context)}"]
    if "fsGroup" in context:
        flags.append(f"--group-add={context['fsGroup']}")
    expected = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    _require_known(context, expected, {"runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy"})
    return [*flags, f"--stop-timeout={pod['terminationGracePeriodSeconds']}"]


def _container_flags(context: Document) -> list[str]:
    _require_known(
        context,
        {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
        {"capabilities"},
    )
    capabilities = context["capabilities"]
    return [
        "--read-only",
        "--security-opt=no-new-privileges",
        *[f"--cap-drop={name}" for name in capabilities.get("drop", [])],
        *[f"--cap-add={name}" for name in capabilities.get("add", [])],
    ]


def _resource_flags(limits: Mapping[str, str]) -> list[str]:
    """Memory without swap, as a cluster has it. Docker cannot limit ephemeral storage."""
    _require_known(limits, {}, {"memory", "cpu", "ephemeral-storage"})
    memory = quantity(limits["memory"])
    flags = [f"--memory={memory}", f"--memory-swap={memory}"]
    return [*flags, f"--cpus={cores(limits['cpu']):g}"] if "cpu" in limits else flags


def _scratch_flags(container: Document, pod: Document, scratch: Path | None) -> list[str]:
    volumes = {volume["name"]: volume for volume in pod["volumes"] if "emptyDir" in volume}
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] in volumes]
    return [_scratch_flag(mount, volumes[mount["name"]], scratch) for mount in mounts]


def _scratch_flag(mount: Document, volume: Document, scratch: Path | None) -> str:
    path = mount["mountPath"]
    if scratch is None:
        size = quantity(volume["emptyDir"]["sizeLimit"])
        return f"--tmpfs={path}:rw,nosuid,nodev,mode=0777,size={size}"
    folder = scratch / volume["name"]
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)  # as the kubelet makes it
    return f"--volume={folder}:{path}"


def _require_known(
    stated: Mapping[str, Any], expected: Mapping[str, Any], others: Iterable[str]
) -> None:
    """Refuse what has no translation: values other than these, and keys that nobody thought of."""
    different = {key for key, value in expected.items() if stated.get(key) != value}
    unknown = stated.keys() - expected.keys() - set(others)
    if different or unknown:
        raise ValueError(f"no flags of docker run are known for {sorted(different | unknown)}")
