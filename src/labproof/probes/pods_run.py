"""One argv in a container, with whatever goes wrong told in the result."""

from __future__ import annotations

import time
from collections.abc import Sequence

from labproof.clients.errors import TransportFailure
from labproof.clients.kubernetes import KubeSession
from labproof.clients.wait import ask_again
from labproof.facts.pod_command import Ran
from labproof.probes.patience import Patience


def run_in(
    session: KubeSession,
    namespace: str,
    pod_name: str,
    container: str | None,
    argv: Sequence[str],
    timeout_s: float,
    patience: Patience,
) -> Ran:
    """Run one argv in a container; whatever goes wrong is told in the result. Nothing is ever run twice.

    A handshake that fails in passing (refused, 503) is asked again: the command had not begun.
    """
    started = time.time()
    try:
        result = patience.ask(
            lambda: ask_again(
                lambda: session.exec(namespace, pod_name, list(argv), container, timeout_s),
                pause_s=session.target.retry_pause_s,
            )
        )
    except TransportFailure as failure:
        return Ran(tuple(argv), None, why=failure.text, started=started, ended=time.time())
    why = result.failure or ""
    missing = "executable file not found" in why or ("no such file or directory" in why and f'exec: "{argv[0]}"' in why)
    return Ran(
        tuple(argv), result.exit_code, result.stdout.decode("utf-8", "replace"),
        result.stderr.decode("utf-8", "replace"), why, missing, started, time.time(),
    )  # fmt: skip
