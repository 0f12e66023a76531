"""Facts of one run: read once, written once, judged as often as one likes.

A section is one probe's result for one target (`host/pve5`, `talos/moody-good`). Sections are read lazily, under a
file lock, so that xdist workers share one probe; each is written atomically the moment it is known, so a crash
leaves everything read so far. `pytest --facts DIR` opens the same folder with no probes at all.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labproof.facts.atomic import write_bytes
from labproof.facts.reading import Reading, State, failed
from labproof.facts.scrub import Scrubber

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 1
Probe = Callable[[], Reading[Any]]
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


@dataclass(frozen=True)
class SectionKey:
    """Name of a section: the probe's kind and the target it read."""

    kind: str
    name: str

    @property
    def filename(self) -> str:
        """A file name that holds any target name without meeting another's."""
        safe = re.sub(r"[^A-Za-z0-9._-]", lambda m: f"%{ord(m.group()):02x}", self.name)
        return f"{self.kind}-{safe}.json"


class FactsStore:
    """Sections of one run in one folder.

    Args:
        folder: where `<kind>-<name>.json` files lie; created when missing unless `frozen`.
        frozen: True for saved facts (`--facts`): nothing is ever probed.
        scrubber: takes the lab's secrets out of everything that is written.
    """

    def __init__(self, folder: Path, frozen: bool = False, scrubber: Scrubber | None = None) -> None:
        self.folder = folder
        self.frozen = frozen
        self._scrubber = scrubber or Scrubber()
        self._probes: dict[SectionKey, Probe] = {}
        self._cache: dict[SectionKey, Reading[Any]] = {}
        if not frozen:
            folder.mkdir(parents=True, exist_ok=True)

    def add_probe(self, kind: str, name: str, probe: Probe) -> None:
        """Say how a section is read when somebody first asks for it."""
        self._probes[SectionKey(kind, name)] = probe

    def read_all(self, shapes: Mapping[str, type[Any]]) -> None:
        """Read every section of these kinds now, before something is done that changes them."""
        for key in [k for k in self._probes if k.kind in shapes]:
            self.section(key.kind, key.name, shapes[key.kind])

    def section(self, kind: str, name: str, shape: type[Any]) -> Reading[Any]:
        """The section as a `Reading[shape]`; never raises: what cannot be read is a failed reading."""
        key = SectionKey(kind, name)
        if key not in self._cache:
            self._cache[key] = self._load_or_probe(key, shape)
        return self._cache[key]

    def drop(self, *kinds: str) -> None:
        """Forget every section of these kinds, in memory and in the folder: the next question reads anew.

        Only for whoever has changed the system since; a judged run never forgets.

        Raises:
            ValueError: saved facts are never forgotten.
        """
        if self.frozen:
            raise ValueError("saved facts cannot be read anew")
        from filelock import FileLock

        for key in [k for k in self._cache if k.kind in kinds]:
            del self._cache[key]
        for key in [k for k in self._probes if k.kind in kinds]:
            path = self.folder / key.filename
            with FileLock(str(path) + ".lock"):
                path.unlink(missing_ok=True)

    def _load_or_probe(self, key: SectionKey, shape: type[Any]) -> Reading[Any]:
        path = self.folder / key.filename
        if path.exists():
            return _decode(path, shape)
        probe = self._probes.get(key)
        if self.frozen or probe is None:
            return Reading(
                State.NOT_ASKED,
                source=f"facts/{key.filename}",
                why=f"{key.kind} facts of {key.name} were not recorded",
            )
        from filelock import FileLock

        with FileLock(str(path) + ".lock"):
            if path.exists():  # another worker was faster
                return _decode(path, shape)
            write_bytes(path, self._encode(probe(), shape))
            return _decode(path, shape)  # live and saved facts are the same bytes, hence the same verdicts

    def _encode(self, reading: Reading[Any], shape: type[Any]) -> bytes:
        body = _adapter(shape).dump_python(reading, mode="json")
        body = self._scrubber.value(body)
        return json.dumps({"schema": SCHEMA, "reading": body}, indent=1, sort_keys=True).encode()


def _adapter(shape: type[Any]) -> TypeAdapter[Any]:
    """Built once a shape: making one costs more than reading the facts does."""
    if shape not in _ADAPTERS:
        from pydantic import TypeAdapter

        _ADAPTERS[shape] = TypeAdapter(Reading[shape])  # type: ignore[valid-type]
    return _ADAPTERS[shape]


def _decode(path: Path, shape: type[Any]) -> Reading[Any]:
    from pydantic import ValidationError

    source = f"facts/{path.name}"
    try:
        saved = json.loads(path.read_bytes())
        if saved["schema"] != SCHEMA:
            return failed(source, f"facts schema {saved['schema']}, this labproof reads schema {SCHEMA}", "schema")
        return cast("Reading[Any]", _adapter(shape).validate_python(saved["reading"]))
    except (ValueError, KeyError, TypeError, ValidationError) as broken:
        return failed(source, f"not a facts file of this version: {type(broken).__name__}", "schema")


def now() -> float:
    """Unix time in seconds at which a probe reads; checks never call this, they take it from Facts."""
    return time.time()
