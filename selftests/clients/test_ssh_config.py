"""What lab.yaml and ~/.ssh/config say together, resolved as ssh(1) does."""

from pathlib import Path

import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.ssh_config import SshTarget, resolve


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "config"
        path.write_text(text)
        return str(path)

    return write


def test_an_alias_gives_address_port_user_key_and_known_hosts(config):
    text = (
        "Host pve5\n  HostName 192.0.2.5\n  Port 2222\n  User suite\n  IdentityFile ~/.ssh/lab\n"
        "  UserKnownHostsFile /a/known /b/known\n  HostKeyAlias pve5.lab\n  IdentitiesOnly yes\n"
    )
    (hop,) = resolve(SshTarget("pve5", config_file=config(text)))
    assert (hop.address, hop.port, hop.user, hop.known_as) == ("192.0.2.5", 2222, "suite", "pve5.lab")
    assert hop.identity_files == (str(Path("~/.ssh/lab").expanduser()),)
    assert hop.known_hosts == ("/a/known", "/b/known", "/etc/ssh/ssh_known_hosts")
    assert not hop.use_agent
    assert not hop.default_keys
    assert str(hop) == "ssh pve5 = suite@192.0.2.5:2222"


def test_what_lab_yaml_says_wins(config):
    text = "Host *\n  User nobody\n  Port 1\n  UserKnownHostsFile /c\n"
    (hop,) = resolve(SshTarget("h", user="root", port=22, known_hosts=("/mine",), config_file=config(text)))
    assert (hop.user, hop.port, hop.known_hosts) == ("root", 22, ("/mine",))


def test_no_configuration_gives_the_usual(config):
    (hop,) = resolve(SshTarget("192.0.2.9", user="root", config_file=None))
    assert (hop.address, hop.port, str(hop)) == ("192.0.2.9", 22, "ssh root@192.0.2.9:22")
    assert hop.known_hosts[0] == str(Path("~/.ssh/known_hosts").expanduser())
    assert resolve(SshTarget("192.0.2.9", config_file="/absent/config"))


def test_proxyjump_is_resolved_through_the_configuration(config):
    text = (
        "Host inner\n  HostName 10.0.0.5\n  ProxyJump admin@edge:2200,middle\n"
        "Host edge\n  HostName edge.example\n  ProxyJump first\n"
        "Host middle\n  HostName 10.0.0.1\n  User mid\nHost first\n  HostName 198.51.100.1\n  User one\n"
    )
    hops = resolve(SshTarget("inner", user="root", config_file=config(text)))
    assert [str(hop) for hop in hops] == [
        "ssh first = one@198.51.100.1:22",
        "ssh edge = admin@edge.example:2200",
        "ssh middle = mid@10.0.0.1:22",
        "ssh inner = root@10.0.0.5:22",
    ]


def test_jumps_of_lab_yaml_replace_those_of_the_configuration(config):
    path = config("Host h\n  ProxyJump other\n")
    assert len(resolve(SshTarget("h", jump=(), config_file=path))) == 1
    (jump, _) = resolve(SshTarget("h", jump=(SshTarget("j", user="u", config_file=path),), config_file=path))
    assert jump.address == "j"


@pytest.mark.parametrize(("word", "port"), [("ssh://u@[2001:db8::1]:23", 23), ("u@2001:db8::1", 22)])
def test_jump_spellings_with_ipv6(config, word, port):
    (jump, _) = resolve(SshTarget("h", config_file=config(f"Host h\n  ProxyJump {word}\n")))
    assert (jump.address, jump.port, jump.user) == ("2001:db8::1", port, "u")


def test_include_is_followed(config, tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-lab").write_text("Host pve5\n  HostName 192.0.2.77\n")
    (hop, *_) = resolve(SshTarget("pve5", config_file=config(f"Include {tmp_path}/conf.d/*\nHost *\n  User u\n")))
    assert (hop.address, hop.user) == ("192.0.2.77", "u")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Host h\n  ProxyCommand nc %h %p\n", "ProxyCommand"),
        ("Host h\n  ProxyJump g\nHost g\n  ProxyJump h\n", "circle: h -> g -> h"),
        ("Host h\n  !!\n", "cannot be read"),
    ],
)
def test_what_cannot_be_followed_is_told(config, text, word):
    with pytest.raises(TransportFailure, match=word) as caught:
        resolve(SshTarget("h", config_file=config(text)))
    assert caught.value.kind is Kind.UNSUPPORTED
