"""Reading and writing objects over HTTP: list, get, create, update, patch, delete."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

from aiohttp import web

from labproof.simlab.kube import admission, managed, patch, table
from labproof.simlab.kube import nodes as node_objects
from labproof.simlab.kube.admission import Refused
from labproof.simlab.kube.cluster import SimCluster
from labproof.simlab.kube.http_base import Identity, Target, answer, bare, body_of, flag
from labproof.simlab.kube.kinds import Kind, Obj
from labproof.simlab.kube.quantity import fields_match, meets, parse_label_selector

_MUTABLE_POD_FIELDS = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}


def selected(cluster: SimCluster, target: Target, query: Any) -> list[Obj]:
    """Objects of a collection that meet the selectors.

    Raises:
        Refused: 400, a selector cannot be parsed.
    """
    key = "events" if target.kind.group == "events.k8s.io" else target.kind.key
    try:
        labels = parse_label_selector(query.get("labelSelector", ""))
    except ValueError as wrong:
        raise Refused(400, "BadRequest", str(wrong)) from wrong
    fields = query.get("fieldSelector", "")
    return [
        o
        for o in cluster.store.all(key, target.namespace or None)
        if meets(o["metadata"].get("labels") or {}, labels) and (not fields or fields_match(o, fields))
    ]


def list_objects(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`list`, with limit and continue."""
    if target.kind.plural in {"nodes", "leases"}:
        cluster.heartbeat()
    rows = selected(cluster, target, request.query)
    version = cluster.store.version
    meta: Obj = {"resourceVersion": version}
    limit = int(request.query.get("limit") or 0)
    token = request.query.get("continue", "")
    if token:
        try:
            start = json.loads(base64.urlsafe_b64decode(token + "=="))
        except ValueError as wrong:
            raise Refused(400, "BadRequest", "continue key is not valid") from wrong
        rows = [o for o in rows if _place(o) > tuple(start["start"])]
        meta["resourceVersion"] = start["rv"]
    if limit and len(rows) > limit:
        remaining = len(rows) - limit
        rows = rows[:limit]
        text = json.dumps({"rv": meta["resourceVersion"], "start": _place(rows[-1])})
        meta["continue"] = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        meta["remainingItemCount"] = remaining
    if table.wanted(request):
        return answer(table.build(target.kind, rows, meta, cluster.clock.now()))
    body = {
        "kind": f"{target.kind.kind}List", "apiVersion": target.kind.api_version, "metadata": meta,
        "items": [bare(o) for o in rows],
    }  # fmt: skip
    return answer(body)


def _place(obj: Obj) -> tuple[str, str]:
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def existing(cluster: SimCluster, target: Target) -> Obj:
    """The object a path names.

    Raises:
        Refused: 404.
    """
    key = "events" if target.kind.group == "events.k8s.io" else target.kind.key
    found = cluster.store.get(key, target.name, target.namespace)
    if found is None:
        raise admission.not_found(target.kind, target.name)
    return found


def get_object(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`get`."""
    if target.kind.plural in {"nodes", "leases"}:
        cluster.heartbeat()
    found = existing(cluster, target)
    if target.sub == "scale":
        return answer(_scale(found))
    if table.wanted(request):
        meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
        return answer(table.build(target.kind, [found], meta, cluster.clock.now()))
    return answer(found)


def _scale(obj: Obj) -> Obj:
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {k: obj["metadata"].get(k) for k in ("name", "namespace", "uid", "resourceVersion")},
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0)},
    }  # fmt: skip


async def create_object(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`create`."""
    body = await body_of(request)
    kind = target.kind
    if not isinstance(body, dict) or (body.get("kind") and body["kind"] != kind.kind):
        raise Refused(
            400, "BadRequest",
            f'{body.get("kind")} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"no kind {json.dumps(body.get('kind'))} is registered for version {json.dumps(kind.api_version)}"
            if isinstance(body, dict) else "the body is no object",
        )  # fmt: skip
    meta = body.setdefault("metadata", {})
    if kind.namespaced:
        if meta.get("namespace") and meta["namespace"] != target.namespace:
            raise Refused(
                400, "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            )  # fmt: skip
        meta["namespace"] = target.namespace
    if not meta.get("name") and not meta.get("generateName"):
        raise admission.invalid(
            kind, "", [("FieldValueRequired", "Required value: name or generateName is required", "metadata.name")]
        )
    body = managed.created(
        {**body, "apiVersion": kind.api_version}, manager_of(request), managed.UPDATE, cluster.clock.stamp()
    )
    made, warnings = cluster.create(kind, body, dry_run="dryRun" in request.query)
    if "dryRun" not in request.query:
        cluster.written.note(kind, made)
    return answer(made, 201, warnings)


def manager_of(request: web.Request) -> str:
    """The field manager of a request that is no apply: named, else the program of the User-Agent."""
    return request.query.get("fieldManager") or request.headers.get("User-Agent", "unknown").partition("/")[0]


def modified(target: Target) -> Refused:
    """409: the object is another version than the one that was read."""
    return Refused(
        409, "Conflict",
        f'Operation cannot be fulfilled on {target.kind.key} "{target.name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        {"name": target.name, **({"group": target.kind.group} if target.kind.group else {}),
         "kind": target.kind.plural},
    )  # fmt: skip


async def update_object(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`update` (PUT)."""
    body = await body_of(request)
    before = existing(cluster, target)
    version = (body.get("metadata") or {}).get("resourceVersion")
    if version and version != before["metadata"]["resourceVersion"]:
        raise modified(target)
    body = _updated(cluster, target, request, before, body)
    return _write(cluster, target, before, body, "dryRun" in request.query)


def _updated(cluster: SimCluster, target: Target, request: web.Request, before: Obj, after: Obj) -> Obj:
    if target.sub:
        return after
    after = {**after, "apiVersion": target.kind.api_version}
    return managed.updated(before, after, manager_of(request), cluster.clock.stamp())


def _write(cluster: SimCluster, target: Target, before: Obj, after: Obj, dry_run: bool) -> web.Response:
    """Store a changed object: of `/status` only the status, else everything but the status."""
    if target.sub == "scale":
        replicas = after["spec"]["replicas"]
        after = copy.deepcopy(before)
        after["spec"]["replicas"] = replicas
    elif target.sub == "status":
        after = {**before, "status": after.get("status") or {}}
    elif "status" in before:
        after = {**after, "status": before["status"]}
    after["metadata"] = {**after.get("metadata", {})}
    for fixed in ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp"):
        if fixed in before["metadata"]:
            after["metadata"][fixed] = before["metadata"][fixed]
    if target.kind.key == "pods":
        _check_pod_update(target.kind, before, after)
    if dry_run:
        return answer(after)
    stored = cluster.store.put(target.kind, after)
    cluster.written.note(target.kind, stored, before)
    if target.kind.key == "nodes" and stored["spec"].get("unschedulable") != before["spec"].get("unschedulable"):
        stored = cluster.store.put(target.kind, node_objects.tainted_as_cordoned(stored, cluster.clock.stamp()))
    return answer(_scale(stored) if target.sub == "scale" else stored)


def _check_pod_update(kind: Kind, before: Obj, after: Obj) -> None:
    def fixed(pod: Obj) -> Obj:
        spec = {k: v for k, v in pod["spec"].items() if k not in _MUTABLE_POD_FIELDS}
        for key in ("containers", "initContainers"):
            spec[key] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(key) or []]
        return spec

    if fixed(before) != fixed(after):
        text = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        raise admission.invalid(kind, before["metadata"]["name"], [("FieldValueForbidden", text, "spec")])


async def patch_object(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`patch` of any of the four types."""
    body = await body_of(request)
    dry_run = "dryRun" in request.query
    if request.content_type.startswith("application/apply-patch"):
        return _apply(cluster, target, request, body, dry_run)
    before = existing(cluster, target)
    try:
        if request.content_type == "application/json-patch+json":
            after = patch.json_patch(before, body)
        elif request.content_type == "application/strategic-merge-patch+json":
            if target.kind.group in {"nvidia.com", "nfd.k8s-sigs.io"}:
                raise Refused(
                    415, "UnsupportedMediaType",
                    "the body of the request was in an unknown format - accepted media types include: "
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                )  # fmt: skip
            after = patch.strategic(before, body)
        elif request.content_type == "application/merge-patch+json":
            after = patch.merge_patch(before, body)
        else:
            raise Refused(
                415, "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, "
                "application/apply-patch+yaml",
            )  # fmt: skip
    except patch.PatchRefused as wrong:
        raise Refused(
            422, "Invalid", f"the server rejected our request due to an error in our request: {wrong}"
        ) from wrong
    wanted = (body.get("metadata") or {}).get("resourceVersion") if isinstance(body, dict) else None
    if wanted and wanted != before["metadata"]["resourceVersion"]:
        raise modified(target)
    after = _updated(cluster, target, request, before, after)
    return _write(cluster, target, before, after, dry_run)


def _apply(cluster: SimCluster, target: Target, request: web.Request, body: Any, dry_run: bool) -> web.Response:
    """Server-side apply."""
    manager = request.query.get("fieldManager", "")
    if not manager:
        raise Refused(
            422,
            "Invalid",
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
        )
    meta = body.setdefault("metadata", {})
    meta.setdefault("name", target.name)
    if target.kind.namespaced:
        meta["namespace"] = target.namespace
    before = cluster.store.get(target.kind.key, target.name, target.namespace)
    if before is None:
        stamp = cluster.clock.stamp()
        owned = managed.created({**body, "apiVersion": target.kind.api_version}, manager, managed.APPLY, stamp)
        made, warnings = cluster.create(target.kind, owned, dry_run=dry_run)
        if not dry_run:
            cluster.written.note(target.kind, made)
        return answer(made, 201, warnings)
    clashes = managed.conflicts(before, body, manager)
    if clashes and not flag(request.query, "force"):
        raise Refused(409, "Conflict", managed.conflict_text(clashes), {"causes": managed.causes(clashes)})
    wanted = meta.get("resourceVersion")
    if wanted and wanted != before["metadata"]["resourceVersion"]:
        raise modified(target)
    after = managed.applied(before, patch.strategic(before, body), body, manager, cluster.clock.stamp())
    return _write(cluster, target, before, after, dry_run)


async def delete_object(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`delete`."""
    grace = await _grace(request)
    before = existing(cluster, target)
    _meet(await body_of(request), before, target)
    if "dryRun" in request.query:
        return answer(before)
    cluster.written.note(target.kind, before, gone=True)
    gone = cluster.delete(target.kind, target.name, target.namespace, grace)
    if target.kind.key == "pods":
        return answer(gone)
    details = {
        "name": target.name, **({"group": target.kind.group} if target.kind.group else {}),
        "kind": target.kind.plural, "uid": gone["metadata"]["uid"],
    }  # fmt: skip
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


def _meet(options: Any, obj: Obj, target: Target) -> None:
    """Preconditions of a delete: that very object, in that very version."""
    wanted = (options or {}).get("preconditions") or {}
    for key, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        have = obj["metadata"][key]
        if wanted.get(key) and wanted[key] != have:
            text = f"Precondition failed: {name} in precondition: {wanted[key]}, {name} in object meta: {have}"
            text = f'Operation cannot be fulfilled on {target.kind.key} "{target.name}": {text}'
            raise Refused(409, "Conflict", text, {"name": target.name, "kind": target.kind.plural})


async def _grace(request: web.Request) -> int | None:
    options = await body_of(request)
    value = (options or {}).get("gracePeriodSeconds")
    if value is None and "gracePeriodSeconds" in request.query:
        value = request.query["gracePeriodSeconds"]
    return None if value is None else int(value)


async def delete_collection(cluster: SimCluster, target: Target, request: web.Request) -> web.Response:
    """`deletecollection`."""
    grace = await _grace(request)
    rows = selected(cluster, target, request.query)
    if "dryRun" not in request.query:
        for obj in rows:
            cluster.delete(target.kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""), grace)
    meta = {"resourceVersion": cluster.store.version}
    return answer(
        {
            "kind": f"{target.kind.kind}List", "apiVersion": target.kind.api_version, "metadata": meta,
            "items": [bare(o) for o in rows],
        }
    )  # fmt: skip


def create_review(cluster: SimCluster, who: Identity, target: Target, body: Obj) -> Obj:
    """SelfSubjectAccessReview, SelfSubjectRulesReview, SelfSubjectReview."""
    from labproof.simlab.kube.rbac import Request

    kind = target.kind.kind
    base: Obj = {"kind": kind, "apiVersion": target.kind.api_version, "metadata": {}}
    if kind == "SelfSubjectReview":
        return {**base, "status": {"userInfo": {"username": who.user, "groups": list(who.groups)}}}
    spec = body.get("spec") or {}
    if kind == "SelfSubjectRulesReview":
        rules = cluster.authorizer.rules_for(Request(who.user, who.groups, "", namespace=spec.get("namespace", "")))
        if "system:masters" in who.groups:
            rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        rows = [r for r in rules if r.get("resources")]
        return {**base, "spec": spec, "status": {"resourceRules": rows, "nonResourceRules": [], "incomplete": False}}
    asked = spec.get("resourceAttributes") or {}
    path = (spec.get("nonResourceAttributes") or {}).get("path", "")
    verb = asked.get("verb") or (spec.get("nonResourceAttributes") or {}).get("verb", "")
    resource = asked.get("resource", "")
    if asked.get("subresource"):
        resource = f"{resource}/{asked['subresource']}"
    allowed = cluster.authorizer.allows(
        Request(
            who.user, who.groups, verb, asked.get("group", ""), resource, asked.get("namespace", ""),
            asked.get("name", ""), path,
        )
    )  # fmt: skip
    return {**base, "spec": spec, "status": {"allowed": allowed, **({} if allowed else {"reason": ""})}}
