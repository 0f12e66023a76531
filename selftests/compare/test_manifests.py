"""manifests/nightly, the Containerfile and docs/nightly.md agree with each other and with what the commands do."""

import re
import tomllib
from pathlib import Path

import yaml

from labproof import places
from labproof.inventory.load import load_lab

NIGHTLY = places.folder("manifests") / "nightly"
ROOT = NIGHTLY.parents[1]


def objects(path):
    return [o for o in yaml.safe_load_all(path.read_text("utf-8")) if o]


def all_of_it():
    return [o for path in sorted(NIGHTLY.glob("*.yaml")) for o in objects(path)]


def one(kind):
    (found,) = [o for o in all_of_it() if o["kind"] == kind and not o["apiVersion"].startswith("talos.dev")]
    return found


def pod():
    return one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_name_the_job_mounts_is_made_by_a_file_beside_it():
    made = {(o["kind"], o["metadata"]["name"]) for o in all_of_it()}
    talos = next(o for o in all_of_it() if o["apiVersion"] == "talos.dev/v1alpha1")
    made.add(("Secret", talos["metadata"]["name"]))  # Talos writes a Secret of the same name
    assert talos["spec"]["roles"] == ["os:reader"]
    for volume in pod()["volumes"]:
        for kind, key in (("configMap", "name"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName")):
            if kind in volume:
                assert (kind[0].upper() + kind[1:], volume[kind][key]) in made
    assert ("ServiceAccount", pod()["serviceAccountName"]) in made
    assert {
        o["metadata"]["namespace"] for o in all_of_it() if o["kind"] not in ("ClusterRoleBinding", "RoleBinding")
    } == {"labproof"}


def test_the_account_is_bound_to_the_shipped_roles_and_to_all_of_them():
    shipped = objects(ROOT / "manifests" / "rbac.yaml")
    roles = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in shipped if "rules" in o}
    bound = [o for o in all_of_it() if o["kind"].endswith("Binding")]
    named = {
        (b["roleRef"]["kind"], b["roleRef"]["name"],
         b["metadata"]["namespace"] if b["roleRef"]["kind"] == "Role" else None)
        for b in bound
    }  # fmt: skip
    assert named == roles
    assert all(s["name"] == "labproof-nightly" for b in bound for s in b["subjects"])
    assert not [o for o in all_of_it() if "rules" in o], "no right of its own"


def test_the_pod_is_not_root_and_writes_only_where_it_may():
    container = pod()["containers"][0]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    user = pod()["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in (ROOT / "Containerfile").read_text("utf-8")
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/var/lib/labproof", "/tmp"}


def test_the_job_outlives_the_run_s_own_deadline_and_is_not_tried_again():
    spec = one("CronJob")["spec"]
    lab = yaml.safe_load(one("ConfigMap")["data"]["lab.yaml"])
    deadline_s = lab.get("timings", {}).get("deadline_s", 3600)
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > deadline_s + pod()["terminationGracePeriodSeconds"]
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["concurrencyPolicy"] == "Forbid"


def test_the_shipped_lab_yaml_is_valid(tmp_path, monkeypatch):
    monkeypatch.setenv("LABPROOF_PVE_TOKEN", "00000000-1111-2222-3333-444444444444")
    (tmp_path / "lab.yaml").write_text(one("ConfigMap")["data"]["lab.yaml"], "utf-8")
    lab = load_lab(tmp_path / "lab.yaml")
    mounted = {Path(m["mountPath"]).resolve() for m in pod()["containers"][0]["volumeMounts"]}  # /var/run is a link
    paths = [lab.hosts[0].ssh.key, lab.hosts[0].ssh.known_hosts, lab.hosts[0].pve.ca, lab.nodes[0].talos.talosconfig]
    for path in [*paths, lab.clusters[0].kubeconfig]:
        assert Path(path).parent in mounted, path
    keys = set(one("Secret")["stringData"])
    assert {p.rsplit("/", 1)[1] for p in paths[:3]} <= keys


def test_the_template_holds_no_secret():
    assert all(value.startswith("REPLACE: ") for value in one("Secret")["stringData"].values())


def test_the_image_is_built_from_all_the_wheel_needs_and_nothing_else():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    file = (ROOT / "Containerfile").read_text("utf-8")
    copied = {words.split()[0] for words in re.findall(r"(?m)^COPY ((?!--)\S+ \S+)$", file)}
    assert copied == {*wheel["force-include"], "src"}


def test_the_page_names_only_files_and_options_that_exist():
    page = (ROOT / "docs" / "nightly.md").read_text("utf-8")
    for name in re.findall(r"manifests/nightly/([\w-]+\.yaml)", page):
        assert (NIGHTLY / name).is_file()
    (listed,) = re.findall(r"for f in ([\w -]+); do", page)
    assert {f"{n}.yaml" for n in listed.split()} == {p.name for p in NIGHTLY.glob("*.yaml")} - {"secret.yaml"}
    for block in re.findall(r"```yaml\n(.*?)```", page.replace("    ```", "```"), re.DOTALL):
        assert yaml.safe_load(block)
