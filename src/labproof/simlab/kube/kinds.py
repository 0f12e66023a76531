"""The kinds the simulated API server serves, and its discovery documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]

READ = ("get", "list", "watch")
ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    """One resource type of the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL
    sub: tuple[tuple[str, str, tuple[str, ...]], ...] = ()  # name, kind, verbs
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """What objects of this kind carry in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """`plural.group`, the name used in the store and in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_STATUS = ("status", "", ("get", "patch", "update"))
_SCALE = ("scale", "Scale", ("get", "patch", "update"))

KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "namespaces", "Namespace", False, ("ns",), sub=(_STATUS,)),
    Kind("", "v1", "nodes", "Node", False, ("no",), sub=(_STATUS, ("proxy", "NodeProxyOptions", ("get",)))),
    Kind(
        "",
        "v1",
        "pods",
        "Pod",
        True,
        ("po",),
        categories=("all",),
        sub=(
            _STATUS,
            ("log", "Pod", ("get",)),
            ("exec", "PodExecOptions", ("create", "get")),
            ("attach", "PodAttachOptions", ("create", "get")),
            ("portforward", "PodPortForwardOptions", ("create", "get")),
            ("proxy", "PodProxyOptions", ("create", "delete", "get", "patch", "update")),
            ("eviction", "Eviction", ("create",)),
        ),
    ),
    Kind("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Kind("", "v1", "secrets", "Secret", True),
    Kind("", "v1", "services", "Service", True, ("svc",), categories=("all",), sub=(_STATUS,)),
    Kind("", "v1", "events", "Event", True, ("ev",)),
    Kind(
        "",
        "v1",
        "serviceaccounts",
        "ServiceAccount",
        True,
        ("sa",),
        sub=(("token", "TokenRequest", ("create",)),),
    ),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), sub=(_STATUS,)),
    Kind("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), sub=(_STATUS,)),
    Kind("", "v1", "limitranges", "LimitRange", True, ("limits",)),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), categories=("all",), sub=(_STATUS,)),
    Kind(
        "apps",
        "v1",
        "deployments",
        "Deployment",
        True,
        ("deploy",),
        categories=("all",),
        sub=(_STATUS, _SCALE),
    ),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), categories=("all",), sub=(_STATUS, _SCALE)),
    Kind(
        "apps",
        "v1",
        "statefulsets",
        "StatefulSet",
        True,
        ("sts",),
        categories=("all",),
        sub=(_STATUS, _SCALE),
    ),
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision", True),
    Kind("batch", "v1", "jobs", "Job", True, categories=("all",), sub=(_STATUS,)),
    Kind("batch", "v1", "cronjobs", "CronJob", True, ("cj",), categories=("all",), sub=(_STATUS,)),
    Kind("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", True),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",)),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role", True),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Kind(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        False,
        verbs=("create",),
    ),
    Kind(
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        False,
        verbs=("create",),
    ),
    Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, verbs=("create",)),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd",),
        sub=(_STATUS,),
    ),
    Kind("events.k8s.io", "v1", "events", "Event", True, ("ev",), verbs=READ),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), sub=(_STATUS,)),
)

# Custom resources exist only when their operator is installed (SimCluster adds them to its own table).
NODE_FEATURE = Kind("nfd.k8s-sigs.io", "v1alpha1", "nodefeatures", "NodeFeature", True)
NODE_FEATURE_RULE = Kind("nfd.k8s-sigs.io", "v1alpha1", "nodefeaturerules", "NodeFeatureRule", False, ("nfr",))
CLUSTER_POLICY = Kind("nvidia.com", "v1", "clusterpolicies", "ClusterPolicy", False, sub=(_STATUS,))


class KindTable:
    """The kinds one cluster serves."""

    def __init__(self, extra: tuple[Kind, ...] = ()) -> None:
        self.kinds: list[Kind] = [*KINDS, *extra]
        self._by_path = {(k.group, k.version, k.plural): k for k in self.kinds}
        self._by_kind = {(k.group, k.kind): k for k in self.kinds}
        self._by_key = {k.key: k for k in self.kinds}

    def add(self, kind: Kind) -> None:
        """Serve one more kind (a CRD was installed)."""
        if (kind.group, kind.version, kind.plural) in self._by_path:
            return
        self.kinds.append(kind)
        self._by_path[(kind.group, kind.version, kind.plural)] = kind
        self._by_kind[(kind.group, kind.kind)] = kind
        self._by_key[kind.key] = kind

    def remove(self, group: str, plural: str) -> list[Kind]:
        """Serve a custom kind no longer (its CRD was deleted); returns its versions."""
        gone = [k for k in self.kinds if (k.group, k.plural) == (group, plural)]
        for kind in gone:
            self.kinds.remove(kind)
            del self._by_path[kind.group, kind.version, kind.plural]
            self._by_kind.pop((kind.group, kind.kind), None)
            self._by_key.pop(kind.key, None)
        return gone

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at a path, None when there is none."""
        return self._by_path.get((group, version, plural))

    def named(self, kind: str, api_version: str = "") -> Kind | None:
        """The kind of a manifest's `kind` and `apiVersion`."""
        group = api_version.partition("/")[0] if "/" in api_version else ""
        return self._by_kind.get((group, kind))

    def key(self, key: str) -> Kind:
        """The kind with this `plural.group`."""
        return self._by_key[key]

    def groups(self) -> dict[str, list[str]]:
        """Named API groups and their versions, in order of registration."""
        found: dict[str, list[str]] = {}
        for kind in self.kinds:
            if kind.group and kind.version not in found.setdefault(kind.group, []):
                found[kind.group].append(kind.version)
        return found


def _resource(kind: Kind) -> list[Obj]:
    rows: list[Obj] = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
            **({"shortNames": list(kind.short)} if kind.short else {}),
            **({"categories": list(kind.categories)} if kind.categories else {}),
            "storageVersionHash": "c2ltbGFiAAA=",
        }
    ]
    for name, sub_kind, verbs in kind.sub:
        rows.append(
            {
                "name": f"{kind.plural}/{name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind or kind.kind,
                "verbs": list(verbs),
            }
        )
    return rows


def resource_list(table: KindTable, group: str, version: str) -> Obj | None:
    """`GET /api/v1` or `/apis/<group>/<version>`; None when that version is not served."""
    kinds = [k for k in table.kinds if k.group == group and k.version == version]
    if not kinds:
        return None
    group_version = f"{group}/{version}" if group else version
    rows = [row for kind in kinds for row in _resource(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows}


def group_list(table: KindTable) -> Obj:
    """`GET /apis`."""
    groups = []
    for group, versions in table.groups().items():
        rows = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
        groups.append({"name": group, "versions": rows, "preferredVersion": rows[0]})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def aggregated(table: KindTable, legacy: bool) -> Obj:
    """The aggregated discovery document (apidiscovery.k8s.io/v2) that kubectl asks for since 1.27."""

    def version(group: str, name: str) -> Obj:
        resources = []
        for kind in (k for k in table.kinds if k.group == group and k.version == name):
            resources.append(
                {
                    "resource": kind.plural,
                    "responseKind": {"group": group, "version": name, "kind": kind.kind},
                    "scope": "Namespaced" if kind.namespaced else "Cluster",
                    "singularResource": kind.kind.lower(),
                    "verbs": list(kind.verbs),
                    **({"shortNames": list(kind.short)} if kind.short else {}),
                    **({"categories": list(kind.categories)} if kind.categories else {}),
                    **(
                        {
                            "subresources": [
                                {
                                    "subresource": sub,
                                    "responseKind": {
                                        "group": group,
                                        "version": name,
                                        "kind": sub_kind or kind.kind,
                                    },
                                    "verbs": list(verbs),
                                }
                                for sub, sub_kind, verbs in kind.sub
                            ]
                        }
                        if kind.sub
                        else {}
                    ),
                }
            )
        return {"version": name, "resources": resources, "freshness": "Current"}

    items: list[Obj] = []
    if legacy:
        items.append({"metadata": {}, "versions": [version("", "v1")]})
    else:
        for group, versions in table.groups().items():
            items.append({"metadata": {"name": group}, "versions": [version(group, v) for v in versions]})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }
