"""Why the API server refused to create a pod (also by server-side dry run), from the Status it answered with.

Source: facts real-kubernetes "Refused by the API server", kubernetes-gpu 8.1 and 8.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Because(StrEnum):
    """Classes of refusal."""

    POD_SECURITY = "pod security"
    RUNTIME_CLASS = "no such RuntimeClass"
    QUOTA = "quota"
    NAMESPACE = "no such namespace"
    SERVICE_ACCOUNT = "no service account yet"
    PRIORITY_CLASS = "no such PriorityClass"
    NO_RIGHT = "no right"  # RBAC: our own credential, not the pod
    WEBHOOK = "admission webhook"
    INVALID = "invalid"
    OTHER = "other"


@dataclass(frozen=True)
class Refusal:
    """One refusal.

    Attributes:
        because: the class.
        status: HTTP status.
        text: the server's message, unchanged.
        name: what it names: the PodSecurity level with version (`baseline:latest`), the RuntimeClass, the quota,
            the namespace, the webhook or policy.
    """

    because: Because
    status: int
    text: str
    name: str = ""


# The order matters: PodSecurity, RuntimeClass, quota and RBAC refusals are all 403 "is forbidden".
_TEXTS: tuple[tuple[Because, re.Pattern[str]], ...] = (
    (Because.POD_SECURITY, re.compile(r'violates PodSecurity "([^"]+)"')),
    (Because.RUNTIME_CLASS, re.compile(r'RuntimeClass "([^"]+)" not found')),
    (Because.QUOTA, re.compile(r"exceeded quota: ([^,]+)")),
    (Because.PRIORITY_CLASS, re.compile(r"no PriorityClass with name (\S+) was found")),
    (Because.SERVICE_ACCOUNT, re.compile(r"error looking up service account (\S+?):")),
    (Because.WEBHOOK, re.compile(r'admission webhook "([^"]+)"|failed calling webhook "([^"]+)"')),
    (Because.WEBHOOK, re.compile(r"ValidatingAdmissionPolicy '([^']+)'")),
    (Because.NAMESPACE, re.compile(r'namespaces "([^"]+)" not found')),
    (Because.NO_RIGHT, re.compile(r'User "([^"]*)" cannot \w+ resource')),
)


def classify_refusal(status: int, message: str) -> Refusal:
    """The refusal behind an HTTP status of 400 or more and the Status object's `message`."""
    for because, pattern in _TEXTS:
        match = pattern.search(message)
        if match:
            return Refusal(because, status, message, next((g for g in match.groups() if g), ""))
    # The API server's own 403 says what "is forbidden: ..."; a bare one is a proxy's, or about who we are.
    if status == 403 and "forbidden:" not in message:
        return Refusal(Because.NO_RIGHT, status, message)
    return Refusal(Because.INVALID if status == 422 else Because.OTHER, status, message)
