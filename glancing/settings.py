"""Turns the credentials that operators already have into what the OpenStack SDK expects.

The seed knew seven variables and Keystone v2. They work as they stand: a domain is assumed where
none is given, and an ``OS_AUTH_URL`` that ends in ``/v2.0`` is taken as ``/v3``. Everything that
the SDK knows by itself (``OS_CLOUD``, ``clouds.yaml``, application credentials, tokens) is left to
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_V2_PATH = re.compile(r"/v2\.0/*$")
_DOMAIN_NAMES = ("DOMAIN_ID", "DOMAIN_NAME")


@dataclass(frozen=True, slots=True)
class CloudEnvironment:
    """``OS_*`` variables to set and to drop, and whether the v2 URL was taken as v3."""

    assign: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    v2_taken_as_v3: bool = False


def cloud_environment(environ: Mapping[str, str]) -> CloudEnvironment:
    """What has to change in the environment before the SDK reads it.

    Empty variables are dropped: openrc files of the seed's time export those that do not apply.
    """
    present = {key: value for key, value in environ.items() if key.startswith("OS_") and value}
    drop = frozenset(key for key in environ if key.startswith("OS_") and not environ[key])
    if "OS_CLOUD" in present or "OS_AUTH_URL" not in present:
        return CloudEnvironment(drop=drop)
    auth_url = present["OS_AUTH_URL"].rstrip("/")
    as_v3 = _V2_PATH.sub("/v3", auth_url)
    assign = {"OS_AUTH_URL": as_v3, **_default_domains(present)}
    if as_v3 != auth_url:
        # A version 2 client configuration goes with a version 2 URL.
        drop |= frozenset({"OS_IDENTITY_API_VERSION"} & present.keys())
    return CloudEnvironment(assign, drop, v2_taken_as_v3=as_v3 != auth_url)


def _default_domains(present: Mapping[str, str]) -> dict[str, str]:
    """Domains for a login by user name, where the seed's variables give none."""
    if "OS_USERNAME" not in present or "OS_DEFAULT_DOMAIN" in present:
        return {}
    assumed = {}
    for part in ("USER", "PROJECT"):
        if not any(f"OS_{part}_{name}" in present for name in _DOMAIN_NAMES):
            assumed[f"OS_{part}_DOMAIN_ID"] = "default"
    return assumed
