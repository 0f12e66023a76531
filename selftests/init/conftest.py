"""An owner's home folder that reaches the simulated lab the way owners reach theirs: ~/.ssh/config, files, a token."""

import pytest

from labproof import places
from labproof.cli import main
from labproof.init import endpoints
from labproof.simlab.server import SimLab

CANARY = "canary-4f1d9c2ab7"


@pytest.fixture(scope="session")
def simlab():
    with SimLab("t4-jellyfin") as lab:
        yield lab


@pytest.fixture
def owner(simlab, tmp_path, monkeypatch):
    """An owner of the simulated lab: `owner.enter(variation)`, `owner.init(...)`."""
    return Owner(simlab, tmp_path, monkeypatch)


class Owner:
    """Home folder and command line of somebody who has no lab.yaml yet."""

    def __init__(self, simlab, folder, monkeypatch):
        self.simlab, self.folder, self.monkeypatch = simlab, folder, monkeypatch
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.lab = folder / "work" / "lab.yaml"
        self.lab.parent.mkdir()
        monkeypatch.setenv("HOME", str(self.home))
        for name in ("KUBECONFIG", "TALOSCONFIG", endpoints.TOKEN, endpoints.TOKEN_ID, "SSH_AUTH_SOCK"):
            monkeypatch.delenv(name, raising=False)

    def enter(self, variation=None, faults=()):
        """Let the simulated lab be this one, and put its doors into the home folder."""
        self.simlab.reset(list(faults), variation)
        patch = self.simlab.overlay["patch"]
        hosts, nodes, clusters = (named(patch.get(key, {})) for key in ("hosts", "nodes", "clusters"))
        lines = []
        for name, host in hosts.items():
            ssh = host["ssh"]
            lines += [
                f"Host {name}", "  HostName 127.0.0.1", f"  Port {ssh['port']}", "  User root", "  IdentitiesOnly yes",
                f"  IdentityFile {ssh['key']}", f"  UserKnownHostsFile {ssh['known_hosts']}",
            ]  # fmt: skip
        (self.home / ".ssh/config").write_text("\n".join(lines) + "\n")
        pves = [h["pve"] for h in hosts.values() if h.get("pve")]
        self.tokens = [p["token_secret"].removeprefix("file:") for p in pves]
        self.doors = {
            "ssh": [w for name in hosts for w in ("--ssh", name)],
            "pve": [
                w for p in pves for w in (
                    "--pve", p["url"], "--pve-ca", p["ca"], "--pve-token-file", p["token_secret"].removeprefix("file:"),
                )
            ],
            "talos": [
                w for n in nodes.values() if n.get("talos") for w in ("--talosconfig", n["talos"]["talosconfig"])
            ],
            "kube": [w for c in clusters.values() for w in ("--kubeconfig", c["kubeconfig"])],
        }  # fmt: skip
        return self

    def init(self, *words, using=("ssh", "pve", "talos", "kube")):
        """Run the command; its exit status."""
        given = [word for kind in using for word in self.doors[kind]]
        return main(["init", *given, "-o", str(self.lab), *words])

    @property
    def simlab_lab(self):
        """The shipped lab.yaml."""
        return places.lab_file("t4-jellyfin")

    @property
    def timings(self):
        """Short durations: the one thing a real owner would not need."""
        return {"timings": self.simlab.overlay["patch"]["timings"]}


def named(things):
    """Things by name, whether the overlay patches them by name or lists them whole."""
    return {t["name"]: t for t in things} if isinstance(things, list) else things
