"""The object store: plain dicts with uid and resourceVersion, and the watch stream over them."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from labproof.simlab.kube.clock import Clock
from labproof.simlab.kube.kinds import Kind, KindTable, Obj

# uids must be the same in every run of the same world; any fixed namespace will do.
_NAMESPACE = uuid.UUID("6f7d3c52-0b1e-5a8e-9f57-51b0d2a3c4e1")
_HISTORY = 4096  # events kept for watches that resume; older resourceVersions are answered 410


@dataclass(frozen=True)
class Change:
    """One entry of the watch stream. `kind` ADDED | MODIFIED | DELETED."""

    version: int
    kind: str
    key: str
    obj: Obj
    before: Obj | None


class Store:
    """Objects by kind, namespace and name."""

    def __init__(self, clock: Clock, kinds: KindTable, seed: str) -> None:
        self.clock = clock
        self.kinds = kinds
        self._seed = seed
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._version = 100
        self._made = 0
        self.history: deque[Change] = deque(maxlen=_HISTORY)
        self._watchers: set[asyncio.Queue[Change | None]] = set()
        self.listeners: list[Callable[[Change], None]] = []

    @property
    def version(self) -> str:
        """The store's current resourceVersion."""
        return str(self._version)

    def new_uid(self) -> str:
        """The next uid of this world."""
        self._made += 1
        return str(uuid.uuid5(_NAMESPACE, f"{self._seed}/{self._made}"))

    def hex(self, purpose: str, length: int = 64) -> str:
        """A made-up hex id (container, sandbox, image), stable in one world."""
        self._made += 1
        digits = ""
        part = 0
        while len(digits) < length:
            digits += uuid.uuid5(_NAMESPACE, f"{self._seed}/{purpose}/{self._made}/{part}").hex
            part += 1
        return digits[:length]

    def suffix(self, length: int = 5) -> str:
        """A generateName suffix in Kubernetes' alphabet."""
        alphabet = "bcdfghjklmnpqrstvwxz2456789"
        self._made += 1
        number = uuid.uuid5(_NAMESPACE, f"{self._seed}/name/{self._made}").int
        letters = []
        for _ in range(length):
            number, digit = divmod(number, len(alphabet))
            letters.append(alphabet[digit])
        return "".join(letters)

    # ------------------------------------------------------------------ reading

    def get(self, key: str, name: str, namespace: str = "") -> Obj | None:
        """The live object (do not change it in place), None when absent."""
        return self._objects.get(key, {}).get((namespace, name))

    def all(self, key: str, namespace: str | None = None) -> list[Obj]:
        """All objects of a kind, one namespace or all, in the API's order (by namespace and name)."""
        rows = self._objects.get(key, {})
        return [rows[at] for at in sorted(rows) if namespace is None or at[0] == namespace]

    def each(self, key: str) -> Iterator[Obj]:
        """All objects of a kind in order of creation."""
        return iter(list(self._objects.get(key, {}).values()))

    # ------------------------------------------------------------------ writing

    def put(self, kind: Kind, obj: Obj) -> Obj:
        """Create or replace; sets uid, creationTimestamp, generation, resourceVersion. Returns what is stored.

        Stored objects are never changed in place: a caller hands over new dicts where something is new, and may share
        the rest with the object before (copying everything took most of the time of a world's history).
        """
        meta = dict(obj.get("metadata") or {})
        obj = {**obj, "metadata": meta}
        namespace = meta.get("namespace", "") if kind.namespaced else ""
        at = (namespace, meta["name"])
        rows = self._objects.setdefault(kind.key, {})
        before = rows.get(at)
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if before is None:
            meta["uid"] = meta.get("uid") or self.new_uid()
            meta.setdefault("creationTimestamp", self.clock.stamp())
            if "spec" in obj:
                meta.setdefault("generation", 1)
        else:
            meta["uid"] = before["metadata"]["uid"]
            meta["creationTimestamp"] = before["metadata"]["creationTimestamp"]
            generation = before["metadata"].get("generation")
            if generation is not None:
                changed = obj.get("spec") != before.get("spec")
                meta["generation"] = generation + (1 if changed else 0)
            meta.pop("resourceVersion", None)
            same = {
                **before,
                "metadata": {k: v for k, v in before["metadata"].items() if k != "resourceVersion"},
            }
            if obj == same:
                return before
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        ordered = {"kind": obj.pop("kind"), "apiVersion": obj.pop("apiVersion"), **obj}
        rows[at] = ordered
        self._announce("MODIFIED" if before else "ADDED", kind.key, ordered, before)
        return ordered

    def remove(self, key: str, name: str, namespace: str = "") -> Obj | None:
        """Delete now; returns the last state."""
        gone = self._objects.get(key, {}).pop((namespace, name), None)
        if gone is None:
            return None
        self._version += 1
        last = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self._version)}}
        self._announce("DELETED", key, last, gone)
        return last

    def _announce(self, what: str, key: str, obj: Obj, before: Obj | None) -> None:
        change = Change(self._version, what, key, obj, before)
        self.history.append(change)
        for queue in self._watchers:
            queue.put_nowait(change)
        for listener in self.listeners:
            listener(change)

    # ------------------------------------------------------------------ watching

    def subscribe(self) -> asyncio.Queue[Change | None]:
        """A queue of all further changes; None means that the world was replaced."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Change | None]) -> None:
        """Forget a queue."""
        self._watchers.discard(queue)

    def since(self, version: int) -> list[Change] | None:
        """Changes after a resourceVersion; None when it is too old (410 Gone)."""
        if self.history and version < self.history[0].version - 1 and len(self.history) == _HISTORY:
            return None
        return [change for change in self.history if change.version > version]

    def close(self) -> None:
        """End every watch."""
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers.clear()
