"""What `init` refuses, and what must never get into its file or its output."""

import dataclasses
import json
import os
import socket
import time
from pathlib import Path

import pytest
import yaml

from labproof.facts.reading import value
from labproof.init import look as looking
from labproof.init.page import Block, Blocks, as_text, rendered, scalar, shown
from labproof.inventory.load import load_lab
from labproof.inventory.secrets import secrets_of
from labproof.inventory.yaml_marks import read

CANARY = "canary4f1d9c2ab7e0"
HOSTILE = (
    '"', "'", "a: b", "a #b", "- a", "[x]", "{x: y}", "a\nhosts: []", "\x1b[31mred\x1b[0m", "${HOME}", "${HOME}\n",
    "*a", "&a", "!!python/name:os.system", "%x", "@x", "`id`", "null", "~", "true", "off", "0x10", "010", "1e3",
    "10:20", "0000:01:00", "1_000", "2026-01-01", "", " ", " a ", "a:",
    "file:/etc/passwd", "\u2028",
    "\ud7ff\U0001f600", "é", "\t", "..", "=", "<<", "a" * 500, "---",
    "...", "?", "? a", "|", ">", "a\\nb", "\x00", "\x7f\x85\xa0\ufeff",
)  # fmt: skip


@pytest.mark.parametrize("faults", [("card-gone",), ("card-gone", "runtime-class-absent")], ids=",".join)
def test_no_gpu_anywhere_writes_nothing_and_says_where_it_looked(owner, faults, capsys):
    owner.enter(None, faults)
    assert owner.init() == 5
    assert not list(owner.lab.parent.iterdir())
    told = capsys.readouterr().err
    assert "no GPU anywhere" in told
    for place in ("ssh pve5", "pve https://", "talos", "k8s moody"):
        assert f"  {place}" in told
    assert "VM 1105 has hostpci" in told  # and what speaks of one that should be there


def test_a_file_that_is_there_is_not_touched(owner, capsys):
    owner.enter()
    owner.lab.write_text("mine\n")
    assert owner.init() == 4
    assert owner.lab.read_text() == "mine\n"
    said = capsys.readouterr()
    assert "--force" in said.err
    assert "contact" not in said.out  # refused before anything was asked
    assert owner.init("--force") == 0
    assert load_lab(owner.lab).gpus
    assert [p.name for p in owner.lab.parent.iterdir()] == ["lab.yaml"]


def test_a_file_that_comes_while_it_looks_is_not_replaced(owner, monkeypatch):
    owner.enter()
    real = looking.look

    def look(doors):
        owner.lab.write_text("theirs\n")
        return real(doors)

    monkeypatch.setattr(looking, "look", look)
    assert owner.init() == 4
    assert owner.lab.read_text() == "theirs\n"


@pytest.mark.parametrize(
    "words",
    [
        (), ("--ssh=-oProxyCommand=touch x",), ("--ssh", "a:b"), ("--pve", "http://pve5:8006"),
        ("--pve", "pve5:port"),
        ("--pve", "https://pve5:8006"), ("--pve", f"https://root:{CANARY}@pve5:8006"),
        ("--pve", "pve5", "--pve-token-id", "root@pam"), ("--pve", "pve5", "--pve-token-file", "nowhere"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_any_packet(owner, words, capsys):
    owner.enter()
    assert owner.init(*words, using=()) == 4
    said = capsys.readouterr()
    assert said.err.startswith("labproof init: ")
    assert CANARY not in said.out + said.err
    assert not list(owner.lab.parent.iterdir())


def test_when_nothing_answers_nothing_is_written(owner, capsys, monkeypatch):
    owner.enter()
    monkeypatch.setenv("LABPROOF_PVE_TOKEN", CANARY)
    config = {"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
              "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
              "users": [{"name": "u", "user": {"token": CANARY}}]}  # fmt: skip
    (owner.home / "kube").write_text(json.dumps(config))
    words = ("--pve", "https://127.0.0.1:9", "--kubeconfig", str(owner.home / "kube"), "--talosconfig", "nowhere")
    assert owner.init(*words, using=()) == 6
    said = capsys.readouterr()
    assert "nothing answered" in said.err
    assert CANARY not in said.out + said.err
    assert not list(owner.lab.parent.iterdir())


def test_no_secret_gets_into_the_file_or_the_output(owner, capsys, monkeypatch):
    owner.enter()
    monkeypatch.setenv("LABPROOF_PVE_TOKEN", CANARY)  # a token file was given: this one is nobody's business
    ssh = owner.home / ".ssh/config"
    ssh.write_text(f"# {CANARY}\n{ssh.read_text()}")
    for kind, key in (("talos", "contexts"), ("kube", "users")):
        path = Path(owner.doors[kind][1])
        content = yaml.safe_load(path.read_text())
        if key == "contexts":
            content[key]["another"] = {"endpoints": ["10.9.9.9"], "key": CANARY}
        else:
            content[key][0]["user"]["password"] = CANARY
        copy = owner.home / kind
        copy.write_text(yaml.safe_dump(content))
        owner.doors[kind][1] = str(copy)
    assert owner.init() == 0
    said = capsys.readouterr()
    everything = owner.lab.read_text() + said.out + said.err
    assert CANARY not in everything
    secrets = secrets_of(load_lab(owner.lab))
    assert len(secrets) >= 3
    tokens = [Path(path).read_text().strip() for path in owner.tokens]
    for secret in (*secrets.values(), *tokens):
        assert secret not in everything


def test_the_token_of_the_environment_stays_there(owner, capsys, monkeypatch):
    owner.enter()
    pve = [w for i, w in enumerate(owner.doors["pve"]) if i < 4]
    token = Path(owner.tokens[0]).read_text().strip()
    monkeypatch.setenv("LABPROOF_PVE_TOKEN", token)
    assert owner.init(*pve, using=("ssh",)) == 0
    text = owner.lab.read_text()
    assert "token_secret: ${LABPROOF_PVE_TOKEN}" in text
    assert token not in text + capsys.readouterr().out
    assert load_lab(owner.lab).hosts[0].pve.token_secret.get_secret_value() == token


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_text_is_read_back_as_itself(text):
    block, inner = Block(), Block()
    inner.put("name", text, f"how {text}")
    inner.note(text)
    block.put("a", Blocks([inner]), text)
    block.put("list", [text, "b"], text)
    block.put("map", {text: text})
    lines = "\n".join(rendered(block)) + "\n"
    found = read(lines, "")[0]
    said = as_text(text)
    assert found == {"a": [{"name": said}], "list": [said, "b"], "map": {said: said}}
    assert yaml.safe_load(lines)["a"][0]["name"] == said
    assert "\x1b" not in lines
    assert "\n" not in scalar(text)
    assert shown(text).isprintable()


@pytest.mark.parametrize("name", [x for x in HOSTILE if x.strip()], ids=ascii)
def test_a_hostile_name_of_a_vm_stays_a_name(owner, name, monkeypatch, capsys):
    """PVE refuses most of these; whoever owns the API may answer them all the same."""
    if not _SEEN:
        owner.enter()
        real = looking.look
        monkeypatch.setattr(looking, "look", lambda doors: _SEEN.append(real(doors)) or _SEEN[0])
        owner.init("--force")
    seen = _SEEN[0]
    (door, reading) = seen.pves[0]
    configs = tuple(
        dataclasses.replace(c, keys={**c.keys, "name": name} if c.hostpci else c.keys)
        for c in reading.value.configs.value
    )
    facts = dataclasses.replace(reading.value, configs=value(configs))
    changed = dataclasses.replace(seen, pves=[(door, value(facts))])
    monkeypatch.setattr(looking, "look", lambda _: changed)
    owner.enter()
    capsys.readouterr()
    assert owner.init("--force") == 0, capsys.readouterr()
    lab = load_lab(owner.lab)
    assert lab.vms[0].name == as_text(name)
    assert lab.nodes[0].vm == as_text(name)
    assert len(lab.hosts) == 1
    assert os.environ["HOME"] not in (lab.vms[0].name, lab.vms[0].mapping)
    assert "\x1b" not in capsys.readouterr().out + owner.lab.read_text()


_SEEN = []


def test_an_endpoint_that_never_answers_costs_seconds_and_only_itself(owner, capsys):
    owner.enter()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        began = time.monotonic()
        assert owner.init("--ssh", f"root@127.0.0.1:{port}", using=("ssh", "pve", "kube")) == 0
        assert time.monotonic() - began < 10
    assert load_lab(owner.lab).gpus[0].address == "0000:3b:00.0"
    assert f"NOT SEEN: ssh root@127.0.0.1:{port}: " in owner.lab.read_text()


def test_a_card_nobody_can_name_is_marked_and_not_guessed(owner, capsys):
    owner.enter("hand-labelled")  # no GFD: Kubernetes alone does not say which card it is
    assert owner.init(using=("kube",)) == 0
    assert "device: 10de:0000  # NOT SEEN: which card it is" in owner.lab.read_text()
    assert "fill in `device` of GPU nvidia first" in capsys.readouterr().out
