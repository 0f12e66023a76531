"""A running simulated lab: one world, one event loop in a thread, a server per protocol and target on 127.0.0.1."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib
import importlib.util
import inspect
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labproof.simlab.credentials import TIMINGS, CredentialFolder, write_overlay
from labproof.simlab.host.jail import place_for_roots
from labproof.simlab.pve.rights import Credentials
from labproof.simlab.upgrade.perform import upgraded
from labproof.simlab.world import lab_folder, load_inputs, merge_patch, variations
from labproof.simlab.world.inputs import read_yaml
from labproof.simlab.world.lab import World
from labproof.simlab.world.pki import Pki

if TYPE_CHECKING:
    from labproof.simlab.transport import Lines

_PREFIX = "labproof-sim-"
_Result = TypeVar("_Result")

#: Suite's token at PVE, role at Talos, user at Kubernetes: the shipped least privilege. Where lab.yaml declares a
#: wider Talos right, the client certificate carries that role.
TOKEN_ID = "labproof@pve!suite"  # noqa: S105 - its name, not its value
TALOS_ROLE = "os:reader"
KUBERNETES_USER = "labproof"


class SimLab:
    """A simulated lab in this process.

    Example:
        with SimLab("t4-jellyfin", faults=["vtd-off"]) as lab:
            overlay = lab.overlay
            lab.reset([])
    """

    def __init__(
        self,
        lab: str | Path = "t4-jellyfin",
        faults: Sequence[str] = (),
        variation: str | None = None,
        lines: Lines | None = None,
        *,
        bare: bool | Collection[str] = False,
    ) -> None:
        """Nothing runs until `start`.

        With `bare` nobody has provisioned it (or those parts) yet; with `lines` every server is reached through one
        that can be disturbed.
        """
        self._lines = lines
        self._lab, self._faults, self._variation, self._bare = lab, tuple(faults), variation, bare
        self._pki = Pki()
        self._pve: dict[str, Credentials] = {}
        self._servers: dict[tuple[str, str], Any] = {}
        self._world: World | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None
        self._roots: Path | None = None
        self.overlay: dict[str, Any] = {}

    @property
    def world(self) -> World:
        """The world served now.

        Raises:
            RuntimeError: the lab is not started.
        """
        if self._world is None:
            raise RuntimeError("the simulated lab is not started")
        return self._world

    def start(self) -> dict[str, Any]:
        """Build the world, start every server; returns the overlay.

        Raises:
            FileNotFoundError, KeyError: unknown lab, variation or fault.
        """
        # refuse a typo before anything starts
        inputs = load_inputs(self._lab, self._variation, self._faults, bare=self._bare)
        sweep_leftovers()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._roots = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place_for_roots()))
        for folder in (self._folder, self._roots):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simlab", daemon=True)
        self._thread.start()
        try:
            self._call(self._enter(inputs))
        except BaseException:
            self.stop()
            raise
        return self.overlay

    def reset(
        self,
        faults: Sequence[str] = (),
        variation: str | None = None,
        *,
        patch: Mapping[str, Any] | None = None,
        upgrade: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Build a fresh world behind the same servers; returns the overlay.

        Args:
            faults, variation: what is wrong with the lab, and which of its variations it is.
            patch: merge patch on the inputs: another owner's choices.
            upgrade: component -> version, performed on that lab (see labproof.simlab.upgrade).
        """
        self._faults, self._variation = tuple(faults), variation
        inputs = merge_patch(load_inputs(self._lab, variation, faults, bare=self._bare), patch or {})
        self._call(self._enter(upgraded(inputs, upgrade or {})))
        return self.overlay

    def stop(self) -> None:
        """Close every server and remove the credential files."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(TimeoutError):
                self._call(self._leave(), 10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            if not self._thread.is_alive():
                self._loop.close()
        self._loop = self._thread = self._world = None
        for folder in (self._folder, self._roots):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def write_overlay(self, path: Path) -> None:
        """Write the overlay to a file, atomically."""
        write_overlay(path, self.overlay)

    def __enter__(self) -> SimLab:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    # ------------------------------------------------------------- inside the loop

    def _call(self, work: Coroutine[Any, Any, _Result], timeout_s: float = 60.0) -> _Result:
        if self._loop is None:
            raise RuntimeError("the simulated lab is not started")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def _enter(self, inputs: dict[str, Any]) -> None:
        old, self._world = self._world, World(inputs)
        for cluster in self._world.clusters.values():
            await _settle(cluster, "start")
        if old is not None:
            for cluster in old.clusters.values():
                await _settle(cluster, "close")
        await self._serve_all(self._world)
        self.overlay = self._make_overlay(self._world)

    async def _leave(self) -> None:
        for server in self._servers.values():
            await _settle(server, "close")
        self._servers.clear()
        if self._lines is not None:
            await self._lines.close()
        for cluster in self._world.clusters.values() if self._world else ():
            await _settle(cluster, "close")
        pending = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=2)

    async def _serve_all(self, world: World) -> None:
        roots = self._roots
        if roots is None:
            raise RuntimeError("the simulated lab is not started")
        for name, host in world.hosts.items():
            place = roots / name
            place.mkdir(parents=True, exist_ok=True)
            await self._serve("ssh", "labproof.simlab.host.ssh", name, folder=place)
            if host.inputs.get("kind", "proxmox") == "proxmox":
                credentials = self._pve.setdefault(name, Credentials())
                await self._serve("pve", "labproof.simlab.pve.server", name, credentials=credentials)
        for name in world.nodes:
            if (world.inputs["nodes"][name] or {}).get("os", "talos") == "talos":
                await self._serve("talos", "labproof.simlab.talos.server", name)
        if world.nodes:
            await self._serve("factory", "labproof.simlab.talos.factory", "factory")
        for name in world.clusters:
            await self._serve("kube", "labproof.simlab.kube.server", name)

    async def _serve(self, kind: str, module: str, name: str, **options: Any) -> None:
        if (kind, name) in self._servers or importlib.util.find_spec(module) is None:
            return
        serve: Callable[..., Any] = importlib.import_module(module).serve
        if self._lines is None:
            self._servers[kind, name] = await serve(lambda: self._world, name, self._pki, **options)
            return
        line = self._lines.line(kind, name, self._pki)
        if kind != "ssh":
            options["line"] = line
        self._servers[kind, name] = server = await serve(lambda: self._world, name, self._pki, **options)
        await line.start(server.port)

    def _make_overlay(self, world: World) -> dict[str, Any]:
        if self._folder is None:
            raise RuntimeError("the simulated lab is not started")
        files = CredentialFolder(self._folder, self._pki, self._pve)
        ways = self._servers if self._lines is None else {key: self._lines[key] for key in self._servers}
        ports = {key: int(way.port) for key, way in ways.items()}
        lab_file = lab_folder(self._lab) / "lab.yaml"
        declared = dict(variations(self._lab)[self._variation].lab) if self._variation else {}
        base = read_yaml(lab_file) if lab_file.is_file() else {}
        role = str(merge_patch(base.get("rights") or {}, declared.get("rights") or {}).get("talos", TALOS_ROLE))
        patch: dict[str, Any] = {"hosts": {}, "nodes": {}, "clusters": {}, "timings": dict(TIMINGS)}
        for name in world.hosts:
            patch["hosts"][name] = {"ssh": files.ssh(name, ports["ssh", name])}
            if ("pve", name) in ports and name in world.pve:
                patch["hosts"][name]["pve"] = files.pve(name, ports["pve", name], TOKEN_ID)
        for name in world.nodes:
            if ("talos", name) in ports:
                patch["nodes"][name] = {"talos": _talosconfig(world, files, ports, name, role, admin=bool(self._bare))}
        if self._bare and ("factory", "factory") in ports:
            patch["factory"] = files.factory(ports["factory", "factory"])
        for name in world.clusters:
            if ("kube", name) in ports:
                patch["clusters"][name] = files.kubernetes(name, ports["kube", name], KUBERNETES_USER)
                patch["clusters"][name] |= files.app_keys(world.inputs["clusters"][name].get("apps") or {})
        named = {part: things for part, things in patch.items() if things}  # a lab on the metal has no hosts
        return {"lab": str(lab_file), "patch": _laid_over(declared, named)}


def _laid_over(declared: Any, patch: Any) -> Any:
    """A variation's declarations with endpoints laid over; a list of named things takes them by name."""
    if isinstance(declared, list) and isinstance(patch, Mapping):
        return [_laid_over(item, patch.get(item["name"], {})) for item in declared]
    if isinstance(declared, Mapping) and isinstance(patch, Mapping):
        return {**declared, **{key: _laid_over(declared.get(key), below) for key, below in patch.items()}}
    return patch


def _talosconfig(
    world: World,
    files: CredentialFolder,
    ports: Mapping[tuple[str, str], int],
    name: str,
    role: str,
    *,
    admin: bool,
) -> dict[str, Any]:
    """The owner's talosconfig for one node: its endpoint is the node itself, or the one that the inputs name."""
    inputs = world.inputs["nodes"][name]
    held: Mapping[str, Any] = inputs.get("talosconfig") or {}
    endpoint = str(held.get("endpoint") or name)
    if ("talos", endpoint) not in ports:
        endpoint = name
    return files.talos(
        str(inputs.get("cluster", "")), name, ports["talos", endpoint], str(held.get("role") or role),
        meant=world.nodes[name].address if endpoint != name else None, expired=bool(held.get("expired")),
        admin=admin,
    )  # fmt: skip


async def _settle(thing: Any, method: str) -> None:
    """Call a method that may be missing, plain or a coroutine."""
    call = getattr(thing, method, None)
    if call is not None:
        result = call()
        if inspect.isawaitable(result):
            await result


def sweep_leftovers() -> None:
    """Remove folders of simulated labs whose process is gone (killed with SIGKILL); never those of a live one."""
    places = {Path(tempfile.gettempdir()), place_for_roots()}
    for folder in (found for place in places for found in place.glob(f"{_PREFIX}*")):
        pid = folder.name.removeprefix(_PREFIX).split("-", 1)[0]
        try:
            ours = folder.lstat().st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()
        except OSError:
            continue
        if ours and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
