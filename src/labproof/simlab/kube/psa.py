"""Pod Security Admission: the checks of baseline and restricted that GPU workloads meet, in the server's words.

Bound by captures s10a, s10c; order is that of the check ids.
"""

from __future__ import annotations

from collections.abc import Callable

from labproof.simlab.kube import podspec
from labproof.simlab.kube.kinds import Obj

_BASELINE_CAPS = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
    "secret",
}  # fmt: skip


def _context(container: Obj) -> Obj:
    return dict(container.get("securityContext") or {})


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)


def _which(pod: Obj, bad: Callable[[Obj], bool]) -> str:
    names = [c["name"] for c in podspec.all_containers(pod) if bad(c)]
    if not names:
        return ""
    return f"{'container' if len(names) == 1 else 'containers'} {_quoted(names)}"


def _volumes(pod: Obj, bad: Callable[[Obj], bool]) -> list[Obj]:
    return [v for v in pod["spec"].get("volumes") or [] if bad(v)]


def _capabilities_baseline(pod: Obj) -> str:
    extra: set[str] = set()

    def bad(container: Obj) -> bool:
        added = set((_context(container).get("capabilities") or {}).get("add") or []) - _BASELINE_CAPS
        extra.update(added)
        return bool(added)

    who = _which(pod, bad)
    if not who:
        return ""
    return (
        f"non-default capabilities ({who} must not include {_quoted(sorted(extra))} in "
        "securityContext.capabilities.add)"
    )


def _host_namespaces(pod: Obj) -> str:
    used = [f"{n}=true" for n in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(n)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _host_path(pod: Obj) -> str:
    names = [v["name"] for v in _volumes(pod, lambda v: "hostPath" in v)]
    return f"hostPath volumes ({'volume' if len(names) == 1 else 'volumes'} {_quoted(names)})" if names else ""


def _privileged(pod: Obj) -> str:
    who = _which(pod, lambda c: bool(_context(c).get("privileged")))
    return f"privileged ({who} must not set securityContext.privileged=true)" if who else ""


def _escalation(pod: Obj) -> str:
    who = _which(pod, lambda c: _context(c).get("allowPrivilegeEscalation") is not False)
    return (
        f"allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        if who
        else ""
    )


def _capabilities_restricted(pod: Obj) -> str:
    who = _which(pod, lambda c: "ALL" not in ((_context(c).get("capabilities") or {}).get("drop") or []))
    return f'unrestricted capabilities ({who} must set securityContext.capabilities.drop=["ALL"])' if who else ""


def _volume_types(pod: Obj) -> str:
    bad = _volumes(pod, lambda v: not ((set(v) - {"name"}) <= _RESTRICTED_VOLUMES))
    if not bad:
        return ""
    kinds = sorted({k for v in bad for k in set(v) - {"name"}})
    names = [v["name"] for v in bad]
    return (
        f"restricted volume types ({'volume' if len(names) == 1 else 'volumes'} {_quoted(names)} "
        f"{'uses' if len(names) == 1 else 'use'} restricted volume {'type' if len(kinds) == 1 else 'types'} "
        f"{_quoted(kinds)})"
    )


def _non_root(pod: Obj) -> str:
    if (pod["spec"].get("securityContext") or {}).get("runAsNonRoot"):
        return ""
    who = _which(pod, lambda c: not _context(c).get("runAsNonRoot"))
    return f"runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)" if who else ""


def _seccomp(pod: Obj) -> str:
    good = {"RuntimeDefault", "Localhost"}
    if podspec.value_at(pod["spec"], "securityContext", "seccompProfile", "type") in good:
        return ""
    who = _which(pod, lambda c: (_context(c).get("seccompProfile") or {}).get("type") not in good)
    return (
        f'seccompProfile (pod or {who} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        if who
        else ""
    )


_BASELINE = (_capabilities_baseline, _host_namespaces, _host_path, _privileged)
_RESTRICTED = (
    _escalation, _capabilities_restricted, _host_namespaces, _privileged, _volume_types, _non_root, _seccomp,
)  # fmt: skip


def violations(pod: Obj, level: str) -> str:
    """What a pod violates at a level, joined as the server does; "" when nothing."""
    checks = {"baseline": _BASELINE, "restricted": _RESTRICTED}.get(level, ())
    return ", ".join(text for text in (check(pod) for check in checks) if text)
