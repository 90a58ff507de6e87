"""The credentials that operators have, as the OpenStack SDK is given them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from glancing.settings import CloudEnvironment, cloud_environment

SEED = {
    "OS_AUTH_URL": "https://cloud.example.org:5000/v3",
    "OS_USERNAME": "somebody",
    "OS_PASSWORD": "a-password",
    "OS_TENANT_NAME": "a-project",
}
DOMAINS = {"OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default"}


def environ(**changes: str) -> dict[str, str]:
    return {**SEED, **changes}


@pytest.mark.parametrize(
    ("given", "assign", "drop", "v2_taken_as_v3"),
    [
        pytest.param({}, {}, set(), False, id="nothing is made of nothing"),
        pytest.param(
            environ(),
            {"OS_AUTH_URL": "https://cloud.example.org:5000/v3", **DOMAINS},
            set(),
            False,
            id="the seed's variables get the default domains",
        ),
        pytest.param(
            environ(OS_AUTH_URL="https://cloud.example.org/v2.0"),
            {"OS_AUTH_URL": "https://cloud.example.org/v3", **DOMAINS},
            set(),
            True,
            id="a version 2 URL is taken as version 3",
        ),
        pytest.param(
            environ(OS_AUTH_URL="https://cloud.example.org/identity/v2.0//"),
            {"OS_AUTH_URL": "https://cloud.example.org/identity/v3", **DOMAINS},
            set(),
            True,
            id="also behind a path and before slashes",
        ),
        pytest.param(
            environ(OS_AUTH_URL="https://v2.0.example.org/"),
            {"OS_AUTH_URL": "https://v2.0.example.org", **DOMAINS},
            set(),
            False,
            id="a host is no version",
        ),
        pytest.param(
            environ(OS_AUTH_URL="https://cloud.example.org/v2.0", OS_IDENTITY_API_VERSION="2"),
            {"OS_AUTH_URL": "https://cloud.example.org/v3", **DOMAINS},
            {"OS_IDENTITY_API_VERSION"},
            True,
            id="version 2 is dropped with its URL",
        ),
        pytest.param(
            environ(OS_IDENTITY_API_VERSION="3"),
            {"OS_AUTH_URL": "https://cloud.example.org:5000/v3", **DOMAINS},
            set(),
            False,
            id="version 3 stays",
        ),
        pytest.param(
            environ(OS_USER_DOMAIN_NAME="people"),
            {
                "OS_AUTH_URL": "https://cloud.example.org:5000/v3",
                "OS_PROJECT_DOMAIN_ID": "default",
            },
            set(),
            False,
            id="a domain that is given stays",
        ),
        pytest.param(
            environ(OS_USER_DOMAIN_ID="a", OS_PROJECT_DOMAIN_NAME="b"),
            {"OS_AUTH_URL": "https://cloud.example.org:5000/v3"},
            set(),
            False,
            id="so do two",
        ),
        pytest.param(
            environ(OS_DEFAULT_DOMAIN="people"),
            {"OS_AUTH_URL": "https://cloud.example.org:5000/v3"},
            set(),
            False,
            id="the SDK's own default domain stays",
        ),
        pytest.param(
            environ(OS_REGION_NAME="", OS_TENANT_ID="", OS_USER_DOMAIN_NAME=""),
            {"OS_AUTH_URL": "https://cloud.example.org:5000/v3", **DOMAINS},
            {"OS_REGION_NAME", "OS_TENANT_ID", "OS_USER_DOMAIN_NAME"},
            False,
            id="empty variables are dropped and count as not given",
        ),
        pytest.param(
            {
                "OS_AUTH_URL": "https://cloud.example.org/v3",
                "OS_AUTH_TYPE": "v3applicationcredential",
                "OS_APPLICATION_CREDENTIAL_ID": "id",
                "OS_APPLICATION_CREDENTIAL_SECRET": "secret",
            },
            {"OS_AUTH_URL": "https://cloud.example.org/v3"},
            set(),
            False,
            id="an application credential needs no domain",
        ),
        pytest.param(
            environ(OS_CLOUD="site", OS_AUTH_URL="https://cloud.example.org/v2.0"),
            {},
            set(),
            False,
            id="what clouds.yaml says is left to the SDK",
        ),
        pytest.param(
            {"OS_CLOUD": "", "OS_USERNAME": "somebody"},
            {},
            {"OS_CLOUD"},
            False,
            id="without a URL there is nothing to adapt",
        ),
        pytest.param(
            {"HOME": "", "GLANCING_LIST": ""}, {}, set(), False, id="other variables are not ours"
        ),
    ],
)
def test_the_environment_is_adapted(
    given: Mapping[str, str], assign: Mapping[str, str], drop: set[str], v2_taken_as_v3: bool
) -> None:
    expected = CloudEnvironment(assign, frozenset(drop), v2_taken_as_v3)
    assert cloud_environment(given) == expected


def test_adapting_again_changes_nothing() -> None:
    given = environ(OS_AUTH_URL="https://cloud.example.org/v2.0/", OS_REGION_NAME="")
    once = cloud_environment(given)
    adapted = {key: value for key, value in given.items() if key not in once.drop}
    adapted.update(once.assign)
    again = cloud_environment(adapted)
    assert {**adapted, **again.assign} == adapted
    assert again.drop == frozenset() and not again.v2_taken_as_v3
