"""Who may log in to the sandbox: its credentials, and how they are made in Keystone."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import requests

from tests.sandbox.identity_service import REGION
from tests.sandbox.service import SandboxError

TIMEOUT = 30
DOMAIN = "default"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, and the project it works in."""

    auth_url: str
    username: str
    password: str = field(repr=False)
    project: str
    region: str = REGION

    def environ(self) -> dict[str, str]:
        """The variables that clients of OpenStack read."""
        return {
            "OS_AUTH_URL": self.auth_url,
            "OS_USERNAME": self.username,
            "OS_PASSWORD": self.password,
            "OS_TENANT_NAME": self.project,
            "OS_REGION_NAME": self.region,
        }


@dataclass(frozen=True, slots=True)
class ApplicationCredential:
    """A login that its user has made for a program, without the user's password."""

    auth_url: str
    id: str
    secret: str = field(repr=False)
    region: str = REGION

    def environ(self) -> dict[str, str]:
        """The variables that clients of OpenStack read."""
        return {
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": self.auth_url,
            "OS_APPLICATION_CREDENTIAL_ID": self.id,
            "OS_APPLICATION_CREDENTIAL_SECRET": self.secret,
            "OS_REGION_NAME": self.region,
        }


class Login:
    """A user's session: requests to Keystone and Glance that carry its token."""

    def __init__(self, credentials: Credentials) -> None:
        self.auth_url = credentials.auth_url
        self._session = requests.Session()
        self._session.trust_env = False
        answer = self.call("POST", f"{self.auth_url}/auth/tokens", json=_password(credentials))
        self._session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        self.token: Mapping[str, Any] = answer.json()["token"]

    @property
    def token_id(self) -> str:
        """What says to a service who is asking."""
        return str(self._session.headers["X-Auth-Token"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def call(self, method: str, url: str, **arguments: Any) -> requests.Response:
        """One request; an answer that is an error raises."""
        answer = self._session.request(method, url, timeout=TIMEOUT, **arguments)
        if not answer.ok:
            raise SandboxError(f"{method} {url}: {answer.status_code} {answer.text}")
        return answer

    def create(self, kind: str, **values: object) -> str:
        """Make something in Keystone; return its id."""
        answer = self.call("POST", f"{self.auth_url}/{kind}s", json={kind: values})
        identifier: str = answer.json()[kind]["id"]
        return identifier

    def role(self, name: str) -> str:
        """The id of a role."""
        answer = self.call("GET", f"{self.auth_url}/roles", params={"name": name})
        identifier: str = answer.json()["roles"][0]["id"]
        return identifier


def _password(credentials: Credentials) -> dict[str, Any]:
    """What Keystone wants to be sent for a login."""
    user = {
        "name": credentials.username,
        "domain": {"id": DOMAIN},
        "password": credentials.password,
    }
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": credentials.project, "domain": {"id": DOMAIN}}},
        }
    }


def register_images(admin: Login, url: str) -> None:
    """Put the image service into the catalogue."""
    image = admin.create("service", type="image", name="glance")
    for interface in ("public", "internal"):
        admin.create("endpoint", service_id=image, interface=interface, url=url, region_id=REGION)


def add_member(admin: Login, name: str) -> Credentials:
    """Make a project and in it a user of the same name who is a member and nothing more."""
    password = secrets.token_urlsafe(16)
    project = admin.create("project", name=name, domain_id=DOMAIN)
    user = admin.create("user", name=name, domain_id=DOMAIN, password=password)
    role = admin.role("member")
    admin.call("PUT", f"{admin.auth_url}/projects/{project}/users/{user}/roles/{role}")
    return Credentials(admin.auth_url, name, password, name)


def application_credential(credentials: Credentials) -> ApplicationCredential:
    """Have a user make a login for a program."""
    with Login(credentials) as login:
        owner = login.token["user"]["id"]
        url = f"{login.auth_url}/users/{owner}/application_credentials"
        wanted = {"application_credential": {"name": f"sandbox-{secrets.token_hex(4)}"}}
        made = login.call("POST", url, json=wanted).json()["application_credential"]
    return ApplicationCredential(credentials.auth_url, made["id"], made["secret"])
