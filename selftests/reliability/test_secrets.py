"""Canaries: a secret planted in every input of a lab appears in no output, on good days and on bad ones."""

import base64
import re
import secrets
from pathlib import Path

import pytest
import yaml

from labproof.simlab import server
from labproof.simlab.transport import Lines, Trouble
from labproof.simlab.world import load_inputs, merge_patch

from .command import run, write_lab

PLANTED = {
    name: f"canary{name}{secrets.token_hex(8)}" for name in ("env", "args", "annotation", "secret", "vm", "file")
}
CONTAINER = {
    "name": "jellyfin", "image": "docker.io/jellyfin/jellyfin:10.11",
    "env": [{"name": "JELLYFIN_API_KEY", "value": PLANTED["env"]}],
    "args": [f"--password={PLANTED['args']}"],
    "resources": {"requests": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"},
                  "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}},
}  # fmt: skip
PATCH = {
    "hosts": {"pve5": {
        "files": {"/etc/modprobe.d/notes.conf": {"text": f"# backup password {PLANTED['file']}\n", "mode": "0600"}},
        "vms": {"1105": {"config": {"description": f"login {PLANTED['vm']}"}}},
    }},
    "clusters": {"moody": {"objects": {
        "jellyfin": {
            "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": PLANTED["annotation"]}},
            "spec": {"template": {
                "metadata": {"annotations": {"example.com/token": PLANTED["annotation"]}},
                "spec": {"containers": [CONTAINER]},
            }},
        },
        "login": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "media"},
                  "data": {"password": base64.b64encode(PLANTED["secret"].encode()).decode()}},
    }}},
}  # fmt: skip


@pytest.fixture(scope="module")
def lines():
    return Lines()


@pytest.fixture(scope="module")
def lab(lines, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "load_inputs", lambda *a, **k: merge_patch(load_inputs(*a, **k), PATCH))
        with server.SimLab("t4-jellyfin", lines=lines) as lab:
            yield lab


def text_of(path):
    return Path(path).read_text("utf-8")


def needles(lab):
    """Every secret of this lab, by what it is."""
    found = dict(PLANTED)
    patch = lab.overlay["patch"]
    host, node, cluster = patch["hosts"]["pve5"], patch["nodes"]["moody-good"], patch["clusters"]["moody"]

    def lines_of(name, text):
        body = [line for line in text.splitlines() if len(line) > 30 and "-----" not in line]
        found.update({f"{name} {number}": line for number, line in enumerate(body)})

    found["PVE token"] = text_of(host["pve"]["token_secret"].removeprefix("file:")).strip()
    lines_of("SSH key", text_of(host["ssh"]["key"]))
    talos = yaml.safe_load(text_of(node["talos"]["talosconfig"]))["contexts"]["moody-good"]["key"]
    kube = yaml.safe_load(text_of(cluster["kubeconfig"]))["users"][0]["user"]["client-key-data"]
    for name, encoded in (("talosconfig key", talos), ("kubeconfig key", kube)):
        found[name] = encoded
        lines_of(name, base64.b64decode(encoded).decode())
    return found


def outputs(done, *more):
    yield "terminal", done.output
    for path in (*(done.folder / "reports").rglob("*"), *more):
        if path.is_file():
            yield str(path.relative_to(done.folder)), path.read_bytes().decode("utf-8", "replace")


def leaks(lab, done, *more):
    texts = dict(outputs(done, *more))
    return {
        (what, where)
        for what, needle in needles(lab).items()
        for where, text in texts.items()
        if needle in text or re.sub(r"\s", "", needle) in re.sub(r"\s", "", text)
    }


@pytest.mark.parametrize(
    ("faults", "trouble", "status"),
    [
        ([], None, 0),
        (["vtd-off"], None, 1),
        ([], ("kube", Trouble("exec-dropped", after=6)), 6),
        ([], ("pve", Trouble("status", 401)), 6),
    ],
    ids=["healthy", "broken", "exec-dropped", "pve-401"],
)
def test_no_secret_in_any_output(lab, lines, tmp_path, faults, trouble, status):
    lab.reset(faults)
    lines.clear()
    if trouble:
        lines.disturb(trouble[0], {"kube": "moody", "pve": "pve5"}[trouble[0]], trouble[1])
    write_lab(lab, tmp_path, transcode_s=5, request_s=5)
    words = ["-vv", "--tb=long", "--showlocals", "-rA", "--junitxml=reports/junit.xml", "--alluredir=reports/allure"]
    done = run(tmp_path, *words)
    assert done.status == status, done.output[-3000:]
    assert (tmp_path / "reports" / "junit.xml").is_file()
    assert any((tmp_path / "reports" / "allure").iterdir())
    assert list((tmp_path / "reports" / "latest" / "facts").glob("*.json"))
    assert "Traceback" not in done.output
    assert leaks(lab, done) == set()
    if not trouble:  # what is no secret is found by the same search
        assert "94:96:CC:43:7D:80".lower() in "".join(text for _, text in outputs(done)).lower()
