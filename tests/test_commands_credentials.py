"""How the program logs in, and what it says when it cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import images
from tests.program import Program, Run
from tests.sandbox import Sandbox
from tests.servers import BadServer, FaultProxy, head, on, redirect
from tests.shelf import Shelf

Variables = Callable[[Sandbox, str, Path], Mapping[str, str]]


def seven(sandbox: Sandbox, project_id: str, **changes: str) -> dict[str, str]:
    """The seed's variables."""
    member = sandbox.member
    return {
        "OS_AUTH_URL": member.auth_url,
        "OS_USERNAME": member.username,
        "OS_PASSWORD": member.password,
        "OS_TENANT_NAME": member.project,
        "OS_TENANT_ID": project_id,
        "OS_REGION_NAME": member.region,
        "OS_CACERT": "",
        **changes,
    }


def clouds_yaml(sandbox: Sandbox, folder: Path) -> Path:
    """A configuration of one cloud; JSON is YAML too."""
    member = sandbox.member
    auth = {
        "auth_url": member.auth_url,
        "username": member.username,
        "password": member.password,
        "project_name": member.project,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    path = folder / "clouds.yaml"
    path.write_text(json.dumps({"clouds": {"ours": {"auth": auth, "region_name": member.region}}}))
    return path


def v2(sandbox: Sandbox, end: str = "") -> str:
    return sandbox.auth_url.removesuffix("/v3") + "/v2.0" + end


GOOD: Mapping[str, Variables] = {
    "the seed's seven": lambda sandbox, project, _: seven(sandbox, project),
    "without the project's id": lambda sandbox, _id, _: seven(sandbox, ""),
    "without its name": lambda sandbox, project, _: seven(sandbox, project, OS_TENANT_NAME=""),
    "without a region": lambda sandbox, project, _: seven(sandbox, project, OS_REGION_NAME=""),
    "a v2.0 address": lambda sandbox, project, _: seven(sandbox, project, OS_AUTH_URL=v2(sandbox)),
    "a v2.0 address with a slash": lambda sandbox, project, _: seven(
        sandbox, project, OS_AUTH_URL=v2(sandbox, "/"), OS_IDENTITY_API_VERSION="2.0"
    ),
    "an address without a version": lambda sandbox, project, _: seven(
        sandbox, project, OS_AUTH_URL=sandbox.auth_url.removesuffix("/v3")
    ),
    "projects and domains": lambda sandbox, _id, _: {
        **seven(sandbox, "", OS_TENANT_NAME=""),
        "OS_PROJECT_NAME": sandbox.member.project,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
    },
    "clouds.yaml": lambda sandbox, _id, folder: {
        "OS_CLOUD": "ours",
        "OS_CLIENT_CONFIG_FILE": str(clouds_yaml(sandbox, folder)),
    },
    "an application credential": lambda sandbox, _id, _: sandbox.application_credential().environ(),
}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "disk.raw").write_bytes(images.raw())
    (tmp_path / "vmlist").write_text("disk.raw\n")
    return Program(tmp_path)


@pytest.mark.parametrize("case", GOOD)
def test_what_is_enough_to_log_in(case: str, program: Program, shelf: Shelf) -> None:
    variables = GOOD[case](shelf.sandbox, shelf.project_id, program.cwd)
    run = program.run("plan", "-l", "vmlist", **variables)
    assert run.exit_code == 0 and run.row["decision"] == "upload", run.output
    assert run.named("cloud.connected")
    assert bool(run.named("cloud.v2_taken_as_v3")) == ("v2.0" in case)


def test_an_image_gets_in_with_the_seed_s_variables_alone(program: Program, shelf: Shelf) -> None:
    auth_url = v2(shelf.sandbox)
    variables = seven(shelf.sandbox, shelf.project_id, OS_AUTH_URL=auth_url)
    assert program.run("sync", "-l", "vmlist", **variables).exit_code == 0
    assert shelf.data("disk") == images.raw()


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def without(variables: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key != name}


BAD: Mapping[str, tuple[Variables, int, str, str]] = {
    "nothing": (lambda _s, _p, _f: {}, 2, "config", "OS_AUTH_URL"),
    "empty variables": (
        lambda sandbox, project, _: dict.fromkeys(seven(sandbox, project), ""),
        2,
        "config",
        "OS_AUTH_URL",
    ),
    "no address": (
        lambda sandbox, project, _: without(seven(sandbox, project), "OS_AUTH_URL"),
        2,
        "config",
        "OS_AUTH_URL",
    ),
    "no password": (
        lambda sandbox, project, _: without(seven(sandbox, project), "OS_PASSWORD"),
        2,
        "config",
        "OS_PASSWORD",
    ),
    "no user name": (
        lambda sandbox, project, _: without(seven(sandbox, project), "OS_USERNAME"),
        2,
        "config",
        "OS_USERNAME",
    ),
    "an address without a scheme": (
        lambda sandbox, project, _: seven(sandbox, project, OS_AUTH_URL="cloud.example.org/v3"),
        2,
        "config",
        "OS_AUTH_URL",
    ),
    "an address of another scheme": (
        lambda sandbox, project, _: seven(sandbox, project, OS_AUTH_URL="ftp://127.0.0.1/v3"),
        2,
        "config",
        "OS_AUTH_URL",
    ),
    "half an address": (
        lambda sandbox, project, _: seven(sandbox, project, OS_AUTH_URL="http://[::1/v3"),
        2,
        "config",
        "OS_AUTH_URL",
    ),
    "no secret": (
        lambda sandbox, _p, _f: without(
            dict(sandbox.application_credential().environ()), "OS_APPLICATION_CREDENTIAL_SECRET"
        ),
        2,
        "config",
        "credentials",
    ),
    "a password and a token": (
        lambda sandbox, project, _: seven(sandbox, project, OS_TOKEN="abc"),
        2,
        "config",
        "token",
    ),
    "no such certificates": (
        lambda sandbox, project, _: seven(
            sandbox, project, OS_AUTH_URL="https://127.0.0.1:1/v3", OS_CACERT="/absent"
        ),
        2,
        "config",
        "OS_CACERT",
    ),
    "an unknown cloud": (
        lambda sandbox, _p, folder: {
            "OS_CLOUD": "theirs",
            "OS_CLIENT_CONFIG_FILE": str(clouds_yaml(sandbox, folder)),
        },
        2,
        "config",
        "theirs",
    ),
    "a wrong password": (
        lambda sandbox, project, _: seven(sandbox, project, OS_PASSWORD="wrong-password"),
        3,
        "login-refused",
        "password",
    ),
    "another's project": (
        lambda sandbox, _p, _f: seven(sandbox, "", OS_TENANT_NAME="admin"),
        3,
        "login-refused",
        "project",
    ),
    "a wrong secret": (
        lambda sandbox, _p, _f: {
            **sandbox.application_credential().environ(),
            "OS_APPLICATION_CREDENTIAL_SECRET": "wrong-secret",
        },
        3,
        "login-refused",
        "application credential",
    ),
    "an unknown region": (
        lambda sandbox, project, _: seven(sandbox, project, OS_REGION_NAME="Atlantis"),
        3,
        "cloud-unreachable",
        "OS_REGION_NAME",
    ),
    "Keystone unreachable": (
        lambda sandbox, project, _: seven(
            sandbox, project, OS_AUTH_URL=f"http://127.0.0.1:{closed_port()}/v3"
        ),
        3,
        "cloud-unreachable",
        "OS_AUTH_URL",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not(case: str, program: Program, shelf: Shelf) -> None:
    variables, exit_code, kind, says = BAD[case]
    asked = len(shelf.sandbox.glance_requests())
    given = variables(shelf.sandbox, shelf.project_id, program.cwd)
    check_refused(program.run("sync", "-l", "vmlist", **given), exit_code, kind, says)
    sent = shelf.sandbox.glance_requests()[asked:]
    assert {request.method for request in sent} <= {"GET"}
    assert shelf.all() == []


def check_refused(run: Run, exit_code: int, kind: str, says: str) -> None:
    assert run.exit_code == exit_code, run.output
    error = run.result["error"]
    assert error["kind"] == kind, run.output
    assert says in f"{error['message']} {error['hint']}"
    assert run.rows == [] and run.named("run.failed")


def test_an_address_that_is_no_keystone(program: Program, shelf: Shelf) -> None:
    page = b"<html>It works!</html>"
    with BadServer([head(200, content_length=len(page), content_type="text/html"), page]) as web:
        variables = seven(shelf.sandbox, shelf.project_id, OS_AUTH_URL=web.url("/v3"))
        check_refused(
            program.run("sync", "-l", "vmlist", **variables), 3, "cloud-unreachable", "cloud"
        )


def test_a_login_is_not_taken_to_another_host(program: Program, shelf: Shelf) -> None:
    """Fault 41: a redirect would take the password to wherever it points."""
    with BadServer([head(200, content_length=0)]) as trap:
        elsewhere = trap.url("/v3/auth/tokens").replace("127.0.0.1", "localhost")
        with FaultProxy(shelf.sandbox.auth_url, on("login", then=redirect(elsewhere))) as proxy:
            auth_url = f"{proxy.origin}/v3"
            variables = seven(shelf.sandbox, shelf.project_id, OS_AUTH_URL=auth_url)
            run = program.run("sync", "-l", "vmlist", **variables)
        check_refused(run, 3, "cloud-unreachable", "another host")
        assert trap.connections == 0 and len(proxy.of("login")) == 1


@pytest.fixture
def without_glance(sandbox: Sandbox, shelf: Shelf) -> Iterator[Sandbox]:
    assert shelf.all() == []
    sandbox.stop_glance()
    yield sandbox
    sandbox.start_glance()


def test_glance_unreachable(program: Program, without_glance: Sandbox) -> None:
    variables = without_glance.member.environ()
    run = program.run("sync", "-l", "vmlist", **variables)
    check_refused(run, 3, "cloud-unreachable", "")


def test_a_dry_run_of_an_import_needs_no_cloud_but_uses_the_one_that_is_set(
    program: Program, shelf: Shelf
) -> None:
    assert program.run("import", "-d", "disk.raw").exit_code == 0
    wrong = seven(shelf.sandbox, shelf.project_id, OS_PASSWORD="wrong-password")
    check_refused(program.run("import", "-d", "disk.raw", **wrong), 3, "login-refused", "password")
