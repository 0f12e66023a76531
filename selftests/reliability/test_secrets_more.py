"""Canaries of the other ways to log in, and in what servers and logs say: no output shows them, nor does the lab's own.

SSH by password, PVE by password and ticket, Kubernetes by bearer token, secrets by ${ENV}; logs and refusals
that repeat them.
"""

import base64
import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import yaml

from .command import ROOT, run, write_lab

#: What this lab's owner declares, or what its servers hand out for that. The oddest letters that passwords have.
GIVEN = {
    "password": f"canarypw{token_hex(8)}\"&<é/%'",
    "ssh_password": f"canaryssh{token_hex(8)}",
    "ticket": f"canaryticket{token_hex(8)}+/{token_hex(40)}==",
    "csrf": f"canarycsrf{token_hex(8)}",
    "bearer": f"canarybearer{token_hex(8)}",
    "plugin": f"canaryplugin{token_hex(8)}",
}
#: Nobody declared these, but they look like secrets.
STRAY = {name: f"stray{name}{token_hex(8)}" for name in ("bearer", "basic", "password", "ticket", "cookie", "url")}
STRAY_UUID = str(uuid.uuid4())
BASIC = base64.b64encode(f"root:{STRAY['basic']}".encode()).decode()
STRAY_LINES = [
    f"request header Authorization: Bearer {STRAY['bearer']}",
    f"curl -H 'Authorization: Basic {BASIC}'",
    f"curl -H 'Authorization: PVEAPIToken=root@pam!other={STRAY_UUID}'",
    f"token root@pam!other={STRAY_UUID} is used",
    f"login of root@pam, password={STRAY['password']}",
    f"ticket PVE:root@pam:6920F0AB::{STRAY['ticket']}-_+/{STRAY['ticket']}== is old",
    f"Cookie: PVEAuthCookie={quote('PVE:root@pam:6920F0AC::' + STRAY['cookie'] + '+/==', safe='')}",
    f"proxy http://somebody:{STRAY['url']}@proxy.example.net:3128",
]
GIVEN_LINES = [
    f"authenticated by {GIVEN['ssh_password']} and {GIVEN['bearer']}",
    f"{'.' * 300} cut somewhere in {GIVEN['bearer'] * 4}",
]


def cores():
    """The part of each secret that no escaping changes, by what it is."""
    found = {f"given {name}": re.match(r"[a-z0-9]+", text)[0] for name, text in GIVEN.items()}
    found |= {f"stray {name}": text for name, text in STRAY.items()}
    return {**found, "stray token": STRAY_UUID, "stray basic, encoded": BASIC}


@pytest.fixture(params=["tokenFile", "token", "exec"], ids=["talkative", "talkative-inline", "refusals-that-echo"])
def lab(request, tmp_path):
    """The process, its overlay, where its own words go, and how the kubeconfig holds the bearer token."""
    echoes = request.param == "exec"
    lines = STRAY_LINES if echoes else STRAY_LINES + GIVEN_LINES
    told = tmp_path / "canaries.json"
    told.write_text(json.dumps({**GIVEN, "lines": lines, "echo": echoes}), "utf-8")
    overlay, said = tmp_path / "overlay.json", tmp_path / "sim.log"
    words = ["-m", "selftests.reliability.talkative", str(told), "t4-jellyfin", "--overlay", str(overlay)]
    with said.open("wb") as stream, subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        limit = time.monotonic() + 30
        while b"simlab: ready" not in said.read_bytes():
            assert process.poll() is None and time.monotonic() < limit, said.read_text("utf-8")
            time.sleep(0.05)
        patch = json.loads(overlay.read_text("utf-8"))["patch"]
        yield SimpleNamespace(overlay={"patch": patch}, said=said, echoes=echoes, bearer_by=request.param)
        process.stdin.close()
        process.wait(15)


def log_in_otherwise(patch, folder, bearer_by):
    """Passwords and bearer token instead of key, API token and client certificate; the passwords by the environment.

    The bearer token stands in the kubeconfig, or comes out of a file, or of a credential plugin, and then nobody but
    the client has seen it.
    """
    host = patch["hosts"]["pve5"]
    host["ssh"] = {**{k: v for k, v in host["ssh"].items() if k != "key"}, "agent": False, "password": "${CANARY_SSH}"}
    host["pve"] = {
        "url": host["pve"]["url"], "ca": host["pve"]["ca"], "user": "root@pam", "password": "${CANARY_PVE}",
    }  # fmt: skip
    kubeconfig = Path(patch["clusters"]["moody"]["kubeconfig"])
    content = yaml.safe_load(kubeconfig.read_text("utf-8"))
    (folder / "bearer").write_text(GIVEN["bearer"], "utf-8")
    said = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": GIVEN["plugin"]}}  # fmt: skip
    (folder / "plugin.json").write_text(json.dumps(said), "utf-8")
    plugin = {"apiVersion": said["apiVersion"], "command": "cat", "args": [str(folder / "plugin.json")],
              "interactiveMode": "Never"}  # fmt: skip
    ways = {"exec": plugin, "tokenFile": str(folder / "bearer"), "token": GIVEN["bearer"]}
    content["users"][0]["user"] = {bearer_by: ways[bearer_by]}
    kubeconfig.write_text(yaml.safe_dump(content), "utf-8")


def test_no_secret_of_another_login_nor_of_a_log_in_any_output(lab, tmp_path):
    log_in_otherwise(lab.overlay["patch"], tmp_path, lab.bearer_by)
    write_lab(lab, tmp_path, transcode_s=5, request_s=5)
    lab_file = tmp_path / "lab.yaml"
    content = yaml.safe_load(lab_file.read_text("utf-8"))
    for host in content["hosts"]:
        for way, key in (("pve", "token_id"), ("pve", "token_secret"), ("ssh", "key")):
            host.get(way, {}).pop(key, None)
    lab_file.write_text(yaml.safe_dump(content), "utf-8")
    words = ["-vv", "--tb=long", "--showlocals", "-rA", "--junitxml=reports/junit.xml", "--alluredir=reports/allure"]
    done = run(tmp_path, *words, CANARY_PVE=GIVEN["password"], CANARY_SSH=GIVEN["ssh_password"])
    files = [path for path in (tmp_path / "reports").rglob("*") if path.is_file()]
    texts = {str(path.relative_to(tmp_path)): path.read_bytes().decode("utf-8", "replace") for path in files}
    texts |= {"terminal": done.output, "simulated lab": lab.said.read_text("utf-8")}

    assert done.status == (6 if lab.echoes else 0), done.output[-3000:]
    assert "Traceback" not in done.output + texts["simulated lab"]
    endings = {path.name.partition(".")[2] for path in files}
    assert {"json", "html", "md", "xml"} <= endings, endings
    facts = "".join(text for name, text in texts.items() if "/facts/" in name)
    # What was planted has arrived, or this proves nothing.
    for name in ("host", "talos"):
        (log,) = [text for path, text in texts.items() if f"/facts/{name}-" in path and path.endswith(".json")]
        assert "nvidia: login of root@pam, password=<password>" in log
    assert ("no rights for ***" in facts) is lab.echoes
    assert ("PVEAuthCookie=***" in facts) is lab.echoes
    if not lab.echoes:
        (cluster,) = [text for path, text in texts.items() if path.endswith("/cluster-moody.json")]
        assert "Authorization: Bearer <token>" in cluster
        assert f"<secret clusters.moody.kubeconfig.users[0].user.{lab.bearer_by}>" in cluster
        assert "<secret hosts.pve5.ssh.password>" in cluster
    assert {(what, where) for what, core in cores().items() for where, text in texts.items() if core in text} == set()
    halves = {(what, where) for what, core in cores().items() for where, text in texts.items() if core[:18] in text}
    assert halves == set()
