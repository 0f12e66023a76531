"""The shipped role is sufficient for everything the probe asks, and grants nothing beyond reading."""

from pathlib import Path

import pytest
import yaml

from labproof.places import folder

from .test_operator import OPERATOR, operator_world
from .world import healthy, lab, read

OBJECTS = list(yaml.safe_load_all((folder("manifests") / "rbac.yaml").read_text()))
VERB_OF_SUBRESOURCE = {"log": "get", "exec": "get"}


def roles(kind: str, name: str, namespace: str = "") -> list[dict]:
    return [
        rule
        for o in OBJECTS
        if o["kind"] == kind and o["metadata"]["name"] == name and o["metadata"].get("namespace", "") == namespace
        for rule in o["rules"]
    ]  # fmt: skip


def rules_in(namespace: str) -> list[dict]:
    """Rules that labproof's account has in a namespace ("" for cluster-wide questions)."""
    found = []
    for o in OBJECTS:
        if o["kind"] == "ClusterRoleBinding" or (
            o["kind"] == "RoleBinding" and namespace and o["metadata"]["namespace"] == namespace
        ):
            ref = o["roleRef"]
            found += roles(ref["kind"], ref["name"], "" if ref["kind"] == "ClusterRole" else namespace)
    return found


def allowed(verb: str, group: str, resource: str, namespace: str = "") -> bool:
    return any(
        verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
        for rule in rules_in(namespace)
    )


def question(asked: str, namespace_of_logs: str) -> tuple[str, str, str, str]:
    """(verb, group, resource, namespace) of one question of the probe."""
    if asked.startswith("log "):
        return "get", "", "pods/log", namespace_of_logs
    parts = asked.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if rest[0] == "namespaces" and len(rest) > 2:
        verb = "get" if len(rest) == 4 else ("create" if rest[2] == "pods" else "list")
        return verb, group, rest[2], rest[1]
    return "list", group, rest[0], ""


@pytest.mark.parametrize(
    ("world", "of", "namespace"),
    [
        (healthy(), lab(), "nvidia-device-plugin"),
        (operator_world(), lab(**OPERATOR), "gpu-operator"),
    ],
    ids=["standalone chart", "operator"],
)
def test_the_shipped_role_allows_every_question(world, of, namespace):
    read(world, of)
    assert world.asked
    for asked in world.asked:
        if asked != "/version":  # open to everybody who is authenticated (system:public-info-viewer)
            assert allowed(*question(asked, namespace)), asked


def test_the_shipped_role_reads_no_secret_and_uses_no_wildcard():
    for o in OBJECTS:
        for rule in o.get("rules") or ():
            words = [*rule["verbs"], *rule["apiGroups"], *rule["resources"]]
            assert "*" not in words
            assert not {"secrets", "serviceaccounts/token"} & set(words)


def test_nothing_outside_the_own_namespace_can_be_written():
    writing = {"create", "update", "patch", "delete", "deletecollection"}
    for o in OBJECTS:
        if o["kind"] in ("ClusterRole", "Role") and o["metadata"].get("namespace") != "labproof":
            for rule in o["rules"]:
                # what is posted through a proxy is a question to the app, not an object of the cluster
                assert not writing & set(rule["verbs"]) or rule["resources"] == ["pods/proxy"], o["metadata"]


def test_the_proxy_is_bound_in_named_namespaces_only():
    assert not any("pods/proxy" in rule["resources"] for rule in rules_in(""))


def test_the_own_namespace_admits_plain_gpu_pods_and_no_privileged_ones():
    (space,) = [o for o in OBJECTS if o["kind"] == "Namespace"]
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert Path(folder("manifests") / "rbac.yaml").read_text().startswith("#")
