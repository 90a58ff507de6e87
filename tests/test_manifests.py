"""The manifests of ``k8s/``, read as an auditor and as the API server would read them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from openstack.config import OpenStackConfig

from glancing import __version__, outlets
from glancing.cli import DEFAULT_LIST, glancing
from glancing.errors import ExitCode
from glancing.sharding import Shard
from tests import manifests
from tests.manifests import (
    KUSTOMIZATIONS,
    OVERLAYS,
    Document,
    container,
    cores,
    hardening,
    job_spec,
    of_kind,
    parse,
    pod_spec,
    quantity,
)

ALL = ("base", *OVERLAYS)
SCHEDULED = tuple(name for name in ALL if name != "one-shot")
KUBERNETES_VERSIONS = ("1.35", "1.36", "1.37")
EXAMPLES = sorted((KUSTOMIZATIONS / "examples").glob("*.yaml"))
MIB = 1024 * 1024
MEASURED_IMPORT_BYTES, MEASURED_SECOND_JOB_BYTES = 76 * MIB, 20 * MIB


@pytest.fixture(params=ALL)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    """What a cluster gets, of the base and of every overlay."""
    return manifests.manifests(request.param)


@pytest.fixture(params=SCHEDULED)
def scheduled(request: pytest.FixtureRequest) -> list[Document]:
    """The same, of those that run on a schedule."""
    return manifests.manifests(request.param)


# --- what an API server checks --------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_document_fits_the_schema(documents: list[Document], version: str) -> None:
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_fits_the_schema(example: Path, version: str) -> None:
    (document,) = parse(example.read_text())
    kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    spec = of_kind(manifests.manifests("base"), "CronJob")
    spec["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spec, KUBERNETES_VERSIONS[-1], strict=True)


def test_the_failure_policy_obeys_the_rules_that_no_schema_knows(documents: list[Document]) -> None:
    job, pod = job_spec(documents), pod_spec(documents)
    assert pod["restartPolicy"] == "Never"
    for rule in job["podFailurePolicy"]["rules"]:
        assert len(rule.keys() & {"onExitCodes", "onPodConditions"}) == 1
        codes = rule.get("onExitCodes", {}).get("values", [1])
        assert codes == sorted(set(codes)) and 0 not in codes
        assert rule.get("onExitCodes", {}).get("containerName", "glancing") in names(pod)
        assert rule["action"] != "FailIndex" or "backoffLimitPerIndex" in job
    assert ("backoffLimit" in job) != ("backoffLimitPerIndex" in job)


def names(pod: Document) -> set[str]:
    return {container["name"] for container in pod["containers"]}


def test_everything_lies_in_the_namespace_that_comes_with_it(documents: list[Document]) -> None:
    namespace = of_kind(documents, "Namespace")["metadata"]["name"]
    others = [document for document in documents if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in others} == {namespace}


def test_every_volume_is_mounted_and_every_mount_has_its_volume(documents: list[Document]) -> None:
    volumes = [volume["name"] for volume in pod_spec(documents)["volumes"]]
    mounts = container(documents)["volumeMounts"]
    assert sorted(volumes) == sorted(mount["name"] for mount in mounts)
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)


# --- the restricted Pod Security profile ----------------------------------------------------------

Control = Callable[[Document], bool]


def containers(pod: Document) -> list[Document]:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [container for kind in kinds for container in pod.get(kind, [])]


def contexts(pod: Document) -> list[Document]:
    """The security contexts of the pod and of its containers."""
    return [pod.get("securityContext", {}), *own_contexts(pod)]


def own_contexts(pod: Document) -> list[Document]:
    return [container.get("securityContext", {}) for container in containers(pod)]


def nowhere(pod: Document, *fields: str) -> bool:
    return not any(field in context for context in contexts(pod) for field in fields)


def in_force(pod: Document, field: str, wanted: object) -> bool:
    """Whether every container has the value, by itself or by the pod's."""
    default = pod.get("securityContext", {}).get(field)
    return all(context.get(field, default) == wanted for context in own_contexts(pod))


def hooks(pod: Document) -> list[Document]:
    kinds = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
    return [container[kind] for container in containers(pod) for kind in kinds if kind in container]


VOLUME_TYPES = {
    *("configMap", "csi", "downwardAPI", "emptyDir"),
    *("ephemeral", "persistentVolumeClaim", "projected", "secret"),
}

# Every control of https://kubernetes.io/docs/concepts/security/pod-security-standards/
RESTRICTED: dict[str, Control] = {
    "HostProcess": lambda pod: nowhere(pod, "windowsOptions"),
    "host namespaces": lambda pod: not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"},
    "privileged containers": lambda pod: nowhere(pod, "privileged"),
    "capabilities": lambda pod: all(
        context.get("capabilities") == {"drop": ["ALL"]} for context in own_contexts(pod)
    ),
    "host paths": lambda pod: not any("hostPath" in volume for volume in pod["volumes"]),
    "host ports": lambda pod: not any("ports" in container for container in containers(pod)),
    "host probes and lifecycle hooks": lambda pod: '"host"' not in json.dumps(hooks(pod)),
    "AppArmor": lambda pod: nowhere(pod, "appArmorProfile"),
    "SELinux": lambda pod: nowhere(pod, "seLinuxOptions"),
    "/proc mount type": lambda pod: nowhere(pod, "procMount"),
    "sysctls": lambda pod: nowhere(pod, "sysctls"),
    "volume types": lambda pod: all(
        volume.keys() - {"name"} <= VOLUME_TYPES for volume in pod["volumes"]
    ),
    "privilege escalation": lambda pod: all(
        context.get("allowPrivilegeEscalation") is False for context in own_contexts(pod)
    ),
    "running as non-root": lambda pod: in_force(pod, "runAsNonRoot", True),
    "running as non-root user": lambda pod: all(
        context.get("runAsUser") != 0 for context in contexts(pod)
    ),
    "seccomp": lambda pod: in_force(pod, "seccompProfile", {"type": "RuntimeDefault"}),
}


@pytest.mark.parametrize("control", RESTRICTED)
def test_the_restricted_profile_is_kept(documents: list[Document], control: str) -> None:
    assert RESTRICTED[control](pod_spec(documents))


def test_the_namespace_demands_the_restricted_profile(documents: list[Document]) -> None:
    labels = of_kind(documents, "Namespace")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "latest"


def test_the_user_is_a_number_and_the_root_file_system_read_only(documents: list[Document]) -> None:
    pod = pod_spec(documents)
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        assert pod["securityContext"][field] == 65532
    assert all(context["readOnlyRootFilesystem"] is True for context in own_contexts(pod))
    assert not any({"runAsUser", "runAsGroup"} & context.keys() for context in own_contexts(pod))


def test_no_token_of_the_cluster_is_within_reach(documents: list[Document]) -> None:
    account, pod = of_kind(documents, "ServiceAccount"), pod_spec(documents)
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert not any("projected" in volume for volume in pod["volumes"])
    assert not any("Role" in document["kind"] for document in documents)


# --- the network ----------------------------------------------------------------------------------


def reaches(policy: Document, address: str, port: int, protocol: str = "TCP") -> bool:
    return any(
        {"protocol": protocol, "port": port} in rule["ports"]
        and ("to" not in rule or any(holds(peer["ipBlock"], address) for peer in rule["to"]))
        for rule in policy["spec"]["egress"]
    )


def holds(block: Document, address: str) -> bool:
    inside = ip_address(address) in ip_network(block["cidr"])
    return inside and not any(ip_address(address) in ip_network(net) for net in block["except"])


@pytest.mark.parametrize(
    ("address", "port", "protocol", "reached"),
    [
        ("10.96.0.10", 53, "UDP", True),  # the cluster's DNS
        ("10.96.0.10", 53, "TCP", True),  # long answers
        ("169.254.20.10", 53, "UDP", True),  # a cache on the node
        ("10.128.0.5", 5353, "UDP", True),  # OpenShift's DNS pods
        ("192.0.2.1", 80, "TCP", True),
        ("192.0.2.1", 443, "TCP", True),
        ("2001:db8::1", 443, "TCP", True),
        ("192.0.2.1", 5000, "TCP", True),  # Keystone
        ("192.0.2.1", 9292, "TCP", True),  # Glance
        ("10.0.0.8", 9292, "TCP", True),
        ("192.0.2.1", 8774, "TCP", False),  # Nova is not asked
        ("192.0.2.1", 22, "TCP", False),
        ("10.96.0.1", 6443, "TCP", False),  # the cluster's own API
        ("192.0.2.1", 443, "UDP", False),
        ("169.254.169.254", 80, "TCP", False),  # metadata of the node
        ("fd00:ec2::254", 80, "TCP", False),
        ("fe80::1", 80, "TCP", False),
    ],
)
def test_the_pod_reaches_what_it_needs_and_no_more(
    documents: list[Document], address: str, port: int, protocol: str, *, reached: bool
) -> None:
    assert reaches(of_kind(documents, "NetworkPolicy"), address, port, protocol) is reached


def test_nobody_reaches_the_pod(documents: list[Document]) -> None:
    spec = of_kind(documents, "NetworkPolicy")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in spec
    assert spec["podSelector"]["matchLabels"].items() <= pod_labels(documents).items()
    for rule in spec["egress"]:
        for block in [peer["ipBlock"] for peer in rule.get("to", [])]:
            outer = ip_network(block["cidr"])
            inner = [ip_network(net) for net in block["except"]]
            assert all(net.network_address in outer for net in inner)


def pod_labels(documents: Iterable[Document]) -> dict[str, str]:
    labels: dict[str, str] = job_spec(documents)["template"]["metadata"]["labels"]
    return labels


# --- how a run ends -------------------------------------------------------------------------------


def verdict(job: Document, exit_code: int, *conditions: str) -> str:
    """The action of the first rule that matches; without one the failure counts."""
    for rule in job["podFailurePolicy"]["rules"]:
        for condition in rule.get("onPodConditions", []):
            if condition["type"] in conditions and condition["status"] == "True":
                return str(rule["action"])
        codes = rule.get("onExitCodes")
        if codes and (exit_code in codes["values"]) == (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"


VERDICTS = {
    ExitCode.IMAGES_FAILED: "Count",
    ExitCode.USAGE: "FailJob",
    ExitCode.CLOUD: "Count",
    ExitCode.BUSY: "FailJob",
    ExitCode.INTERRUPTED: "Count",
    ExitCode.TERMINATED: "Count",
}


def test_every_exit_code_has_a_verdict() -> None:
    assert VERDICTS.keys() == set(ExitCode) - {ExitCode.OK}


@pytest.mark.parametrize("code", VERDICTS)
@pytest.mark.parametrize("name", ALL)
def test_exit_codes_are_repeated_or_not(name: str, code: ExitCode) -> None:
    expected = VERDICTS[code]
    if (name, code) == ("sharded", ExitCode.BUSY):
        expected = "FailIndex"  # the other parts finish their uploads
    assert verdict(job_spec(manifests.manifests(name)), code) == expected


@pytest.mark.parametrize("code", VERDICTS)
def test_disruptions_are_ignored_whatever_the_exit_code(
    documents: list[Document], code: ExitCode
) -> None:
    assert verdict(job_spec(documents), code, "DisruptionTarget") == "Ignore"


def test_repetition_is_said_outright(documents: list[Document]) -> None:
    rules = job_spec(documents)["podFailurePolicy"]["rules"]
    counted = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "Count"]
    assert counted == [[ExitCode.IMAGES_FAILED, ExitCode.CLOUD]]


def test_a_failed_run_says_why(documents: list[Document]) -> None:
    assert container(documents)["terminationMessagePath"] == outlets.TERMINATION_LOG
    assert container(documents)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_run_has_the_time_to_clean_up_and_a_bound(documents: list[Document]) -> None:
    assert pod_spec(documents)["terminationGracePeriodSeconds"] == 30
    assert job_spec(documents)["activeDeadlineSeconds"] > 2 * 3600
    tries = {"backoffLimit", "backoffLimitPerIndex"} & job_spec(documents).keys()
    assert [job_spec(documents)[key] for key in tries] == [2]


# --- the schedule ---------------------------------------------------------------------------------


def test_runs_do_not_overlap_and_leave_no_heap(scheduled: list[Document]) -> None:
    spec = of_kind(scheduled, "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["timeZone"] == "Etc/UTC"
    assert spec["successfulJobsHistoryLimit"] == 3
    assert spec["failedJobsHistoryLimit"] == 3


def test_a_run_that_hangs_does_not_cost_the_next_one(scheduled: list[Document]) -> None:
    spec = of_kind(scheduled, "CronJob")["spec"]
    match = re.fullmatch(r"\d+ \*/(\d+) \* \* \*", spec["schedule"])
    assert match
    interval_s = int(match[1]) * 3600
    late_s = spec["startingDeadlineSeconds"]
    assert 60 <= late_s < interval_s  # under ten seconds the controller would miss it
    assert late_s + job_spec(scheduled)["activeDeadlineSeconds"] < interval_s


def test_a_one_shot_job_is_the_same_run_without_the_schedule() -> None:
    base, once = manifests.manifests("base"), manifests.manifests("one-shot")
    assert "CronJob" not in {document["kind"] for document in once}
    seconds = job_spec(once).pop("ttlSecondsAfterFinished")
    assert seconds == 24 * 3600
    assert job_spec(once) == job_spec(base)
    rest = [[d for d in docs if d["kind"] not in ("CronJob", "Job")] for docs in (base, once)]
    assert rest[0] == rest[1]


# --- what the program gets ------------------------------------------------------------------------


def arguments(documents: list[Document], index: int = 0) -> list[str]:
    """The arguments as the kubelet expands them in the pod of this completion index."""
    args = container(documents)["args"]
    return [arg.replace("$(JOB_COMPLETION_INDEX)", str(index)) for arg in args]


def parsed(documents: list[Document], index: int = 0) -> dict[str, Any]:
    """What the real command line makes of the arguments and variables."""
    command, *rest = arguments(documents, index)
    return glancing.commands[command].make_context(command, rest).params


def variables(documents: list[Document]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(documents)["env"]}


def mount(documents: list[Document], path: str) -> tuple[Document, Document]:
    """The mount at a path, and its volume."""
    (found,) = [one for one in container(documents)["volumeMounts"] if one["mountPath"] == path]
    (volume,) = [one for one in pod_spec(documents)["volumes"] if one["name"] == found["name"]]
    return found, volume


def test_the_command_line_is_understood(
    documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arguments(documents)[0] == "sync"
    assert "command" not in container(documents)  # the image's entry point
    for name, value in variables(documents).items():
        monkeypatch.setenv(name, value)
    flags = parsed(documents)
    assert flags["work_dir"] == Path("/work")
    assert [str(location) for location in flags["lists"]] == [DEFAULT_LIST]


def test_the_variables_are_those_of_the_program(documents: list[Document]) -> None:
    known = {str(option.envvar) for option in glancing.commands["sync"].params}
    own = {name for name in variables(documents) if name.startswith("GLANCING_")}
    assert own <= known | {"GLANCING_TERMINATION_LOG", "GLANCING_LOG_FORMAT"}


def test_the_list_is_mounted_where_the_program_looks_for_it(documents: list[Document]) -> None:
    where = Path(DEFAULT_LIST)
    found, volume = mount(documents, str(where.parent))
    assert found["readOnly"] is True
    lists = of_kind(documents, "ConfigMap")
    assert volume["configMap"] == {"name": lists["metadata"]["name"]}
    assert where.name in lists["data"]


def test_the_list_that_comes_with_it_names_no_image(documents: list[Document]) -> None:
    lines = of_kind(documents, "ConfigMap")["data"]["vmlist"].splitlines()
    assert lines and all(line.startswith("#") for line in lines)


def test_the_work_directory_can_be_written_to_and_has_a_bound(documents: list[Document]) -> None:
    found, volume = mount(documents, variables(documents)["GLANCING_WORK_DIR"])
    assert not found.get("readOnly")
    limits = container(documents)["resources"]["limits"]
    assert quantity(volume["emptyDir"]["sizeLimit"]) < quantity(limits["ephemeral-storage"])


def test_requests_and_limits_fit_what_was_measured(documents: list[Document]) -> None:
    resources = container(documents)["resources"]
    requests, limits = resources["requests"], resources["limits"]
    needed = MEASURED_IMPORT_BYTES + MEASURED_SECOND_JOB_BYTES
    assert needed <= quantity(requests["memory"]) == 128 * MIB
    assert 2 * needed <= quantity(limits["memory"]) == 256 * MIB
    assert (cores(requests["cpu"]), cores(limits["cpu"])) == (0.25, 2)
    assert quantity(requests["ephemeral-storage"]) <= quantity(limits["ephemeral-storage"])


def test_the_image_is_that_of_this_version(documents: list[Document]) -> None:
    assert container(documents)["image"] == f"glancing:{__version__}"


def test_backups_go_to_a_claim_of_their_own() -> None:
    documents = manifests.manifests("backups")
    found, volume = mount(documents, variables(documents)["GLANCING_BACKUP_DIR"])
    assert not found.get("readOnly")
    claim = of_kind(documents, "PersistentVolumeClaim")["metadata"]["name"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim}


# --- credentials ----------------------------------------------------------------------------------


def secrets_wanted(documents: list[Document]) -> set[str]:
    sources = container(documents).get("envFrom", [])
    volumes = [volume for volume in pod_spec(documents)["volumes"] if "secret" in volume]
    return {source["secretRef"]["name"] for source in sources} | {
        volume["secret"]["secretName"] for volume in volumes
    }


def example(name: str) -> Document:
    found = [document for path in EXAMPLES for document in parse(path.read_text())]
    return next(document for document in found if document["metadata"]["name"] == name)


def test_no_credentials_are_applied_or_lie_in_a_config_map(documents: list[Document]) -> None:
    assert "Secret" not in {document["kind"] for document in documents}
    lists = of_kind(documents, "ConfigMap")
    assert not re.search(r"(?i)password|secret|credential|OS_", json.dumps(lists))
    own = {name for name in variables(documents) if name.startswith("OS_")}
    assert own <= {"OS_CLOUD", "OS_CLIENT_CONFIG_FILE"}


def test_no_kustomization_applies_the_examples() -> None:
    for path in KUSTOMIZATIONS.rglob("kustomization.yaml"):
        (kustomization,) = parse(path.read_text())
        assert "secretGenerator" not in kustomization
        assert "secret-" not in json.dumps(kustomization)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_hold_no_real_values(path: Path) -> None:
    words = path.read_text()
    keys = r"(?im)^\s*(?:OS_)?APPLICATION_CREDENTIAL_(?:ID|SECRET): (.*)$"
    assert re.findall(keys, words) == ["FILL-IN"] * 2
    assert "password:" not in words.lower()
    assert set(re.findall(r"https?://([^:/\s]+)", words)) == {"keystone.example.org"}


def test_credentials_come_in_one_form_for_which_there_is_an_example(
    documents: list[Document],
) -> None:
    (name,) = secrets_wanted(documents)
    secret = example(name)
    assert secret["metadata"]["namespace"] == of_kind(documents, "Namespace")["metadata"]["name"]


def test_the_example_of_variables_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = secrets_wanted(manifests.manifests("base"))
    for variable, value in example(name)["stringData"].items():
        assert variable.startswith("OS_")
        monkeypatch.setenv(variable, value)
    cloud = OpenStackConfig(config_files=[], secure_files=[]).get_one()
    assert cloud.config["auth_type"] == "v3applicationcredential"
    assert cloud.get_auth_args()["application_credential_id"] == "FILL-IN"


def test_the_example_of_clouds_yaml_is_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = manifests.manifests("clouds-yaml")
    (name,) = secrets_wanted(documents)
    where = Path(variables(documents)["OS_CLIENT_CONFIG_FILE"])
    (tmp_path / where.name).write_text(example(name)["stringData"][where.name])
    found, _ = mount(documents, str(where.parent))
    assert found["readOnly"] is True
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / where.name))
    monkeypatch.setenv("OS_CLOUD", variables(documents)["OS_CLOUD"])
    cloud = OpenStackConfig().get_one()
    assert cloud.config["auth_type"] == "v3applicationcredential"
    assert cloud.get_auth_args()["application_credential_id"] == "FILL-IN"


def test_a_mounted_clouds_yaml_is_for_the_pod_alone() -> None:
    documents = manifests.manifests("clouds-yaml")
    _, volume = mount(documents, "/etc/openstack")
    assert volume["secret"]["defaultMode"] == 0o440


# --- shards ---------------------------------------------------------------------------------------


def test_every_part_of_the_list_has_one_pod() -> None:
    documents = manifests.manifests("sharded")
    job = job_spec(documents)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == 4
    shards = [parsed(documents, index)["shard"] for index in range(job["completions"])]
    assert shards == [Shard(index, job["completions"]) for index in range(job["completions"])]
    for identity in map(str, range(200)):
        assert [shard.has(identity) for shard in shards].count(True) == 1


def test_shards_are_spread_over_machines_but_never_wait_for_one() -> None:
    documents = manifests.manifests("sharded")
    (spread,) = pod_spec(documents)["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"].items() <= pod_labels(documents).items()


# --- a site's own overlay -------------------------------------------------------------------------

SITE = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: glancing
bases:
  - ../overlays/backups
configMapGenerator:
  - name: glancing-vmlist
    behavior: replace
    files: [vmlist]
generatorOptions:
  disableNameSuffixHash: true
images:
  - name: glancing
    newName: images.example.org/glancing
    newTag: "9"
patchesJson6902:
  - target: {group: batch, version: v1, kind: CronJob, name: glancing}
    path: clouds-yaml.yaml
  - target: {group: batch, version: v1, kind: CronJob, name: glancing}
    path: sharded.yaml
"""


def test_a_site_has_its_own_list_and_image_and_combines_overlays(tmp_path: Path) -> None:
    shutil.copytree(KUSTOMIZATIONS, tmp_path / "k8s")
    site = tmp_path / "k8s" / "site"
    site.mkdir()
    (site / "kustomization.yaml").write_text(SITE)
    (site / "vmlist").write_text("https://cloud.example.org/images/debian-12.qcow2\n")
    for overlay in ("clouds-yaml", "sharded"):
        shutil.copy(manifests.directory(overlay) / "cronjob.yaml", site / f"{overlay}.yaml")
    documents = manifests.render(site)
    assert of_kind(documents, "ConfigMap")["data"]["vmlist"].startswith("https://cloud.example")
    _, volume = mount(documents, "/etc/glancing")
    assert volume["configMap"]["name"] == of_kind(documents, "ConfigMap")["metadata"]["name"]
    assert container(documents)["image"] == "images.example.org/glancing:9"
    assert secrets_wanted(documents) == {"glancing-clouds"}
    assert job_spec(documents)["completions"] == 4
    assert mount(documents, "/backups")
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES_VERSIONS[-1], strict=True)


# --- the flags of docker run ----------------------------------------------------------------------


def test_docker_is_told_what_the_manifest_states(documents: list[Document]) -> None:
    assert hardening(container(documents), pod_spec(documents)) == [
        "--user=65532:65532",
        "--group-add=65532",
        "--stop-timeout=30",
        "--read-only",
        "--security-opt=no-new-privileges",
        "--cap-drop=ALL",
        f"--memory={256 * MIB}",
        f"--memory-swap={256 * MIB}",
        "--cpus=2",
        f"--tmpfs=/work:rw,nosuid,nodev,mode=0777,size={20 * 1024 * MIB}",
    ]


def test_docker_may_be_given_a_folder_and_another_user(tmp_path: Path) -> None:
    documents = manifests.manifests("base")
    flags = hardening(container(documents), pod_spec(documents), scratch=tmp_path, user="1000660:0")
    assert flags[0] == "--user=1000660:0"
    assert flags[-1] == f"--volume={tmp_path}/work:/work"
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize(
    ("field", "value"),
    [("privileged", True), ("procMount", "Unmasked"), ("readOnlyRootFilesystem", False)],
)
def test_what_docker_cannot_be_told_is_refused(field: str, value: object) -> None:
    documents = manifests.manifests("base")
    container(documents)["securityContext"][field] = value
    with pytest.raises(ValueError, match=field):
        hardening(container(documents), pod_spec(documents))


def test_a_missing_kubectl_fails_where_every_test_has_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECTL", "no-such-kubectl")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="kubectl"):
        manifests.kubectl()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="kubectl"):
        manifests.kubectl()
