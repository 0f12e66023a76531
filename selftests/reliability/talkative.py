"""The simulated lab as a process of its own, but with servers and logs that tell secrets to everybody who asks.

    python -m selftests.reliability.talkative CANARIES LAB --overlay FILE

CANARIES is a JSON file: `password`, `ssh_password`, `ticket`, `csrf`, `bearer` and `plugin` are what this lab's
servers accept and hand out, `lines` is what its logs say, and with `echo` the servers answer only refusals that
repeat the credentials.
"""

import itertools
import json
import sys
from pathlib import Path

from labproof.simlab.__main__ import main
from labproof.simlab.host import machine, ssh
from labproof.simlab.kube import http_base, plugin
from labproof.simlab.kube import server as kube
from labproof.simlab.kube.admission import Refused
from labproof.simlab.pve import rights
from labproof.simlab.pve import server as pve
from labproof.simlab.talos import server as talos
from labproof.simlab.talos import wire


def grant(told):
    """Known credentials at the host, PVE and Kubernetes; `echo`: they come back in the refusals of the last two."""
    ssh.Server.public_key_auth_supported = lambda server: False
    ssh.Server.password_auth_supported = lambda server: True
    ssh.Server.validate_password = lambda server, user, word: (user, word) == ("root", told["ssh_password"])

    def new_ticket(credentials, user):
        stamp = "6920F0AA"
        ticket = f"PVE:{user}:{stamp}::{told['ticket']}"
        credentials.tickets[ticket] = (user, float("inf"), f"{stamp}:{told['csrf']}")
        return ticket, f"{stamp}:{told['csrf']}"

    def authenticate(api, request):
        if told["echo"]:
            raise pve.Answer(401, f"no: {request.headers} {request.cookies.get('PVEAuthCookie')} {told['password']}")
        return ask_pve(api, request)

    def identify(request, cluster):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if told["echo"]:
            text = f"no rights for {token}, nor for {dict(request.headers)}"
            raise Refused(403, "Forbidden", text)
        if token in (told["bearer"], told["plugin"]):
            cluster.tokens[token] = ("labproof", ("system:authenticated",))
        return ask_kube(request, cluster)

    ask_pve, pve.Api._authenticate = pve.Api._authenticate, authenticate
    rights.Credentials.new_ticket = new_ticket
    rights.Credentials.password = lambda credentials, user: told["password"]
    ask_kube, kube.identify = http_base.identify, identify


def talk(lines):
    """Each line where somebody reads it: the plugin's log, the host's journal and dmesg, the node's dmesg."""
    endless = itertools.cycle(lines)
    klog, boot_log, dmesg = plugin.klog, machine._kernel_log, talos._dmesg

    def journal(host):
        boot_log(host)
        for line in lines:
            host.log("kernel", f"nvidia: {line}", host.booted_at + 40)

    async def node_log(node, request):
        async for record in dmesg(node, request):
            yield record
        for line in lines:
            text = f"kern:    info: [2026-11-20T18:00:00.000000000Z]: nvidia: {line}\n"
            yield wire.message((2, text.encode()))

    plugin.klog = lambda *words, **more: f"{klog(*words, **more)} {next(endless)}"
    machine._kernel_log, talos._dmesg = journal, node_log


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    grant(told)
    talk(told["lines"])
    sys.exit(main(sys.argv[2:]))
