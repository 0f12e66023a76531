"""`labproof report --allure FOLDER`: Allure results as one HTML file that asks nobody for anything.

Allure 3 puts a tracking script of an analytics service into every report, with no option that turns it off (ecosystem
finding 7). It is taken out here, and a file that still names a foreign address in a place a browser would load from is
refused rather than written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from labproof.facts.atomic import write_text

#: Seconds the generator may take: about one for a run of ours, with a cold Node on a small machine some more.
PATIENCE_S = 120.0
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script\s*>", re.DOTALL | re.IGNORECASE)
_TRACKER = re.compile(r"googletagmanager|google-analytics|gtag\s*\(|mc\.yandex|plausible\.io", re.IGNORECASE)
#: Where a browser fetches by itself: attributes of elements outside scripts, `url()` and `@import` of style sheets.
_FETCHED = re.compile(
    r"""(?:\b(?:src|srcset|poster|data|action)\s*=\s*["']?|<link\b[^>]*\bhref\s*=\s*["']?"""
    r"""|\burl\(\s*["']?|@import\s+["'])(?:https?:)?//([^"'\s>)]+)""",
    re.IGNORECASE,
)


class NoAllure(Exception):
    """There is no Allure 3 on this machine; `str()` says how to get it."""


class NotRendered(Exception):
    """Allure is there and could not make the page, or its page would contact somebody."""


def find_allure() -> list[str]:
    """The command of Allure 3: `allure` on PATH, else one that npx finds without downloading anything.

    Raises:
        NoAllure: neither is there, or it is Allure 2 (Java, whose command has the same name).
    """
    found = []
    for words in (["allure"], ["npx", "--no-install", "allure"]):
        path = shutil.which(words[0])
        if path is None:
            continue
        try:
            ran = subprocess.run(
                [path, *words[1:], "--version"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = ran.stdout.strip().splitlines()[-1:] or [""]
        if ran.returncode == 0 and re.match(r"v?3\.", version[0]):
            return [path, *words[1:]]
        if ran.returncode == 0 and version[0]:
            found.append(f"{words[0]} is version {version[0]}")
    seen = f" ({'; '.join(found)})" if found else ""
    raise NoAllure(
        f"Allure 3 is not installed here{seen}, so no Allure page was made; labproof's own page needs nothing."
        " To get it: Node 20.19 or newer, then `npm install --global allure`"
    )


def single_file(results: Path, output: Path, name: str = "labproof") -> Path:
    """Render Allure results into one file without its tracking script.

    Args:
        results: the folder given to `pytest --alluredir`.
        output: the HTML file to write.

    Raises:
        NoAllure: see `find_allure`.
        NotRendered: no results there, Allure failed, or its page would load something from elsewhere.
    """
    if not any(results.glob("*-result.json")):
        raise NotRendered(f"{results}: no Allure results there; run `pytest --alluredir {results}` first")
    command = find_allure()
    with tempfile.TemporaryDirectory(prefix="labproof-allure-") as scratch:
        folder = Path(scratch)
        options = {"singleFile": True, "reportName": name, "reportLanguage": "en", "groupBy": ["epic", "feature"]}
        config = {"name": name, "output": str(folder / "page"), "plugins": {"awesome": {"options": options}}}
        (folder / "allurerc.json").write_text(json.dumps(config), "utf-8")
        words = [*command, "generate", str(results.resolve()), "--config", str(folder / "allurerc.json")]
        try:
            ran = subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise NotRendered(f"allure generate did not end in {PATIENCE_S:.0f} s") from None
        pages = sorted(folder.glob("page/**/index.html"), key=lambda p: -p.stat().st_size)
        if ran.returncode != 0 or not pages:
            said = " ".join((ran.stderr or ran.stdout).split())[:300]
            raise NotRendered(f"allure generate failed (status {ran.returncode}): {said}")
        text = without_tracking(pages[0].read_text("utf-8", errors="replace"))
    foreign = fetched_from(text)
    if foreign:
        raise NotRendered(f"the page Allure made would load from {', '.join(sorted(foreign)[:3])}; it was not written")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, text)
    return output


def without_tracking(text: str) -> str:
    """The page less every script that talks to an analytics service."""
    return _SCRIPT.sub(lambda m: "" if _is_tracking(m.group()) else m.group(), text)


def _is_tracking(script: str) -> bool:
    # the application's own bundle is megabytes and may name such a host in a string; a tracking snippet is short
    return len(script) < 4000 and bool(_TRACKER.search(script))


def fetched_from(text: str) -> set[str]:
    """Foreign addresses a browser would load by itself; a script's own text is no markup, its `src` is."""
    scripts = [m.group() for m in _SCRIPT.finditer(text)]
    heads = "\n".join(script[: script.index(">") + 1] for script in scripts)
    return set(_FETCHED.findall(_SCRIPT.sub("", text) + heads))
