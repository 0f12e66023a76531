"""`--notify URL`: three lines to a webhook or an ntfy topic, only when the verdict is another one than last time.

`https://...` gets a JSON body whose `text` and `content` are what Slack, Mattermost and Discord read;
`ntfy+https://host/topic` gets plain text with a title, as ntfy takes it. Such addresses carry their own secret, so no
text of this module holds more of them than the host.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from labproof.report.wording import LAYERS, ending, first_failures, tally

#: Seconds a receiver may take.
PATIENCE_S = 10.0
SCHEMES = ("http", "https", "ntfy+http", "ntfy+https")


class NotNotified(Exception):
    """The message did not get through; the run itself stands."""


class _StayHere(HTTPRedirectHandler):
    """A message goes where the owner said, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse: urllib then reports the redirect as an HTTP error."""
        return


def check_address(url: str) -> str:
    """The address, when it is one.

    Raises:
        NotNotified: no host, or a scheme this module does not speak.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise NotNotified(f"--notify: give an address that begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    return url


def changed(result: dict[str, Any], past: list[dict[str, Any]]) -> bool:
    """Whether the verdict is another one than in the run before: how it ended, or what is broken first.

    The first run of a lab is news only when it is not green.
    """
    if not past:
        return bool(result["exit_status"] != 0)
    return _verdict(past[-1]) != _verdict(result)


def message(result: dict[str, Any], past: list[dict[str, Any]]) -> list[str]:
    """The three lines: how it ended, what is broken, how much was judged and when."""
    word = ending(result)[0]
    before = f" (was {ending(past[-1])[0]})" if past and "exit_status" in past[-1] else ""
    simulated = "SIMULATED lab " if result["simulated"] else ""
    failures = first_failures(result)
    if failures:
        v = failures[0]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        cause = v["problems"][0]
        second = f"first broken: {LAYERS[v['layer']]}, {v['clause']}: {cause['cause']} {cause['title']}{more}"
    elif result.get("drift"):
        more = f", and {len(result['drift']) - 1} more" if len(result["drift"]) > 1 else ""
        second = f"drifted from its baseline: {result['drift'][0]['text']}{more}"
    else:
        second = ending(result)[2]
    counts = tally(result["verdicts"]) or "nothing judged"
    return [f"{simulated}{result['lab']} is {word}{before}", second, f"{counts}; {result['started'][:16]} UTC"]


def notify(url: str, result: dict[str, Any], past: list[dict[str, Any]]) -> str:
    """Send the message when the verdict changed; returns one line on what was done.

    Raises:
        NotNotified: the receiver is not there or refuses.
    """
    check_address(url)
    parts = urlsplit(url)
    if not changed(result, past):
        return f"notify: {parts.hostname} not told, the verdict is what it was"
    lines = message(result, past)
    if parts.scheme.startswith("ntfy+"):
        title = lines[0].encode("ascii", "replace").decode()  # a header carries no UTF-8
        headers = {"Content-Type": "text/plain; charset=utf-8", "Title": title}
        if result["exit_status"] == 1:
            headers["Priority"] = "high"
        body = "\n".join(lines).encode()
    else:
        text = "\n".join(lines)
        headers = {"Content-Type": "application/json"}
        body = json.dumps(
            {
                "text": text,
                "content": text,
                "lab": result["lab"],
                "run_id": result["run_id"],
                "verdict": ending(result)[0],
            }
        ).encode()
    request = Request(url.removeprefix("ntfy+"), body, headers, method="POST")  # noqa: S310 - schemes are checked above
    try:
        with build_opener(_StayHere()).open(request, timeout=PATIENCE_S):
            return f"notify: {parts.hostname} told"
    except HTTPError as refused:
        raise NotNotified(f"--notify: {parts.hostname} answered {refused.code}") from None
    except (URLError, OSError, ValueError) as failure:
        why = failure.reason if isinstance(failure, URLError) else type(failure).__name__
        raise NotNotified(f"--notify: {parts.hostname} could not be reached ({why})") from None


def _verdict(run: dict[str, Any]) -> tuple[Any, frozenset[tuple[str, str]], frozenset[str]]:
    broken = frozenset((str(b.get("chain")), str(b.get("cause"))) for b in run.get("first_broken") or ())
    drifted = run.get("drift") or ()  # records in run.json, their texts in the history
    return run.get("exit_status"), broken, frozenset(d["text"] if isinstance(d, dict) else str(d) for d in drifted)
