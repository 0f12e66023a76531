"""From what lab.yaml says about an SSH host, and from `~/.ssh/config`, to the hops really dialled.

paramiko does not read the user's configuration by itself and knows no `Include`; both are done here.
"""

import getpass
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from labproof.clients.errors import Kind, TransportFailure, hide

GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts",)
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")  # OpenSSH's own default, ssh_config(5)
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
DEEPEST_INCLUDE = 16  # OpenSSH's limit, ssh_config(5)


@dataclass(frozen=True)
class SshTarget:
    """Where to log in, and as whom. What is None comes from the SSH configuration, then from the defaults.

    Attributes:
        host: a name, an address, or an alias of the SSH configuration.
        identity_files: private keys to try first; `~` is understood.
        password: for password (or keyboard-interactive) login, tried last.
        passphrase: for encrypted private keys.
        known_hosts: files with the accepted host keys; empty: those of the configuration, then the usual ones.
        jump: hosts to go through, nearest first; None: the configuration's ProxyJump.
        config_file: the SSH configuration; None: use none.
        use_agent: whether keys of a running agent are tried.
        use_default_keys: whether `~/.ssh/id_*` are tried.
        connect_timeout_s: for each of: TCP, banner, key exchange, login.
    """

    host: str
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    known_hosts: tuple[str, ...] = ()
    jump: "tuple[SshTarget, ...] | None" = None
    config_file: str | None = "~/.ssh/config"
    use_agent: bool = True
    use_default_keys: bool = True
    connect_timeout_s: float = 15.0

    def __post_init__(self) -> None:
        hide(self, "password", "passphrase")


@dataclass(frozen=True)
class Hop:
    """One SSH server to log in to, everything resolved."""

    name: str
    address: str
    port: int
    user: str
    known_as: str | None
    known_hosts: tuple[str, ...]
    identity_files: tuple[str, ...]
    default_keys: tuple[str, ...]
    use_agent: bool
    connect_timeout_s: float
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The peer and the account, as every message names them."""
        where = f"{self.address}:{self.port}"
        alias = f"{self.name} = " if self.name != self.address else ""
        return f"ssh {alias}{self.user}@{where}"


def resolve(target: SshTarget) -> tuple[Hop, ...]:
    """The hops to `target`: jump hosts nearest first, the target last.

    Raises:
        TransportFailure: unsupported (a ProxyCommand, a configuration that cannot be read, a jump loop).
    """
    return _resolve(target, _read_config(target), ())


def _resolve(target: SshTarget, config: paramiko.SSHConfig, above: tuple[str, ...]) -> tuple[Hop, ...]:
    if target.host in above:
        loop = " -> ".join((*above, target.host))
        raise TransportFailure(Kind.UNSUPPORTED, f"ssh {target.host}", f"ProxyJump goes in a circle: {loop}")
    found = config.lookup(target.host)
    jumps = _jumps(target, found)
    hops: tuple[Hop, ...] = ()
    for position, jump in enumerate(jumps):
        # Like ssh(1): only the first jump host may bring jumps of its own, the others are reached from it.
        # Jumps of lab.yaml are a finite tree; only those of the configuration can go in a circle.
        seen = (*above, target.host) if target.jump is None else ()
        same = jump.config_file == target.config_file
        resolved = _resolve(jump, config if same else _read_config(jump), seen)
        hops += resolved if position == 0 else resolved[-1:]
    return (*hops, _hop(target, found))


def _hop(target: SshTarget, found: paramiko.SSHConfigDict) -> Hop:
    only_named = found.get("identitiesonly", "no").lower() == "yes"
    known_hosts = target.known_hosts
    if not known_hosts:
        users = _words(found.get("userknownhostsfile")) or USER_KNOWN_HOSTS
        known_hosts = (*users, *(_words(found.get("globalknownhostsfile")) or GLOBAL_KNOWN_HOSTS))
    named = (*target.identity_files, *found.get("identityfile", []))
    return Hop(
        name=target.host,
        address=found.get("hostname", target.host),
        port=target.port or int(found.get("port", 22)),
        user=target.user or found.get("user") or getpass.getuser(),
        known_as=found.get("hostkeyalias"),
        known_hosts=tuple(str(Path(name).expanduser()) for name in known_hosts if name != "none"),
        identity_files=tuple(dict.fromkeys(str(Path(name).expanduser()) for name in named)),
        default_keys=DEFAULT_KEYS if target.use_default_keys and not only_named else (),
        use_agent=target.use_agent and not only_named,
        connect_timeout_s=target.connect_timeout_s,
        password=target.password,
        passphrase=target.passphrase,
    )


def _jumps(target: SshTarget, found: paramiko.SSHConfigDict) -> tuple[SshTarget, ...]:
    if target.jump is not None:
        return target.jump
    jump = found.get("proxyjump", "none")
    if jump.lower() == "none":
        if found.get("proxycommand", "none").lower() != "none":
            raise TransportFailure(
                Kind.UNSUPPORTED,
                f"ssh {target.host}",
                "the SSH configuration gives it a ProxyCommand, which labproof does not run; use ProxyJump",
            )
        return ()
    return tuple(_jump(word.strip(), target) for word in jump.split(",") if word.strip())


def _jump(word: str, target: SshTarget) -> SshTarget:
    """One word of ProxyJump: `[user@]host[:port]`, or the same as an ssh:// URI."""
    user, _, rest = word.removeprefix("ssh://").rpartition("@")
    host, port = rest, ""
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    return SshTarget(
        host=host,
        user=user or None,
        port=int(port) if port.isdigit() else None,
        identity_files=target.identity_files,
        passphrase=target.passphrase,
        known_hosts=target.known_hosts,
        config_file=target.config_file,
        use_agent=target.use_agent,
        use_default_keys=target.use_default_keys,
        connect_timeout_s=target.connect_timeout_s,
    )


def _words(value: str | None) -> tuple[str, ...]:
    return tuple(shlex.split(value)) if value else ()


def _read_config(target: SshTarget) -> paramiko.SSHConfig:
    if target.config_file is None:
        return paramiko.SSHConfig()
    path = Path(target.config_file).expanduser()
    try:
        text = "\n".join(_lines(path, 0)) if path.is_file() else ""
        return paramiko.SSHConfig.from_text(text)
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise TransportFailure(
            Kind.UNSUPPORTED, f"ssh {target.host}", f"the SSH configuration {path} cannot be read: {error}"
        ) from None


def _lines(path: Path, depth: int) -> list[str]:
    """The lines of a configuration, `Include` replaced by what it names (relative names: below ~/.ssh)."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.strip().replace("=", " ", 1).split()
        if len(words) > 1 and words[0].lower() == "include" and depth < DEEPEST_INCLUDE:
            for pattern in words[1:]:
                wanted = Path(pattern.strip('"')).expanduser()
                wanted = wanted if wanted.is_absolute() else Path("~/.ssh").expanduser() / wanted
                for found in sorted(wanted.parent.glob(wanted.name)):
                    if found.is_file():
                        lines += _lines(found, depth + 1)
        else:
            lines.append(line)
    return lines
