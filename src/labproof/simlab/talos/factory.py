"""The Image Factory of a simulated lab over HTTPS: schematics are posted, read, and lists of extensions asked for.

Source of paths, status codes and texts: facts/talos.md 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from labproof.simlab.talos.image import canonical
from labproof.simlab.talos.installer import Factory
from labproof.simlab.talos.releases import KMOD_FAMILIES, TOOLKIT_FAMILY, release, tables

if TYPE_CHECKING:
    from labproof.simlab.transport import Line
    from labproof.simlab.world.pki import Pki

_CUSTOM = {"extraKernelArgs", "systemExtensions", "meta", "bootloader", "secureboot", "diskImage",
           "embeddedMachineConfiguration"}  # fmt: skip


@dataclass
class RunningServer:
    """A listening server."""

    port: int
    _runner: web.AppRunner

    async def close(self) -> None:
        """Stop."""
        await self._runner.cleanup()


async def serve(
    world_ref: Callable[[], Any], name: str, pki: Pki, port: int = 0, line: Line | None = None
) -> RunningServer:
    """Serve the world's factory on 127.0.0.1."""
    handlers = _Handlers(world_ref)
    app = web.Application(middlewares=[line.http()] if line is not None else ())
    app.router.add_post("/schematics", handlers.post)
    app.router.add_get("/schematics/{id}", handlers.get)
    app.router.add_get("/version/{tag}/extensions/official", handlers.extensions)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    context = pki.server_context("pve", "factory", name)  # a CA of its own, without keyUsage as a homelab's may be
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    server: Any = site._server  # aiohttp offers no public way to the socket of a site
    return RunningServer(int(server.sockets[0].getsockname()[1]), runner)


class _Handlers:
    """Answers for the current world."""

    def __init__(self, world_ref: Callable[[], Any]) -> None:
        self._world_ref = world_ref

    def _factory(self) -> Factory:
        found: Factory = self._world_ref().factory
        return found

    async def post(self, request: web.Request) -> web.Response:
        """Register a schematic: unknown fields are refused, names of extensions are not looked at."""
        try:
            body = yaml.safe_load(await request.text()) or {}
            custom = body.get("customization") or {}
            unknown = (set(body) - {"customization", "overlay", "owner"}) or (set(custom) - _CUSTOM)
            names = [str(n) for n in (custom.get("systemExtensions") or {}).get("officialExtensions") or ()]
            arguments = [str(a) for a in custom.get("extraKernelArgs") or ()]
        except (yaml.YAMLError, AttributeError) as wrong:
            return web.Response(status=400, text=f"failed to parse schematic: {type(wrong).__name__}\n")
        if unknown:
            said = f"failed to parse schematic: yaml: field {sorted(unknown)[0]} not found in type\n"
            return web.Response(status=400, text=said)
        text = canonical([name.removeprefix("siderolabs/") for name in names], arguments)
        return web.json_response({"id": self._factory().add(text), "schematic": text}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        """A schematic by its id."""
        text = self._factory().known.get(request.match_info["id"])
        if text is None:
            return web.Response(status=404, text="schematic not found\n")
        return web.Response(text=text, content_type="application/yaml")

    async def extensions(self, request: web.Request) -> web.Response:
        """Official extensions of one release."""
        tag = request.match_info["tag"]
        try:
            ship = release(tag)
        except ValueError:
            return web.Response(status=404, text=f"version {tag} is not available\n")
        names = [str(name) for name in tables()["extensions"]]
        for family in (*KMOD_FAMILIES, TOOLKIT_FAMILY):
            names += [f"{family}-lts", f"{family}-production"] if ship.minor >= (1, 8) else [family]
        rows = [
            {"name": f"siderolabs/{n}", "ref": f"ghcr.io/siderolabs/{n}:{tag}", "digest": "", "author": "Sidero Labs",
             "description": ""}
            for n in reversed(names)
        ]  # fmt: skip
        return web.json_response(rows)
