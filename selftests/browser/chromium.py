"""Headless Chromium and axe-core, where this machine has them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

#: `tox -e browser` installs axe-core and Allure 3 there; NODE_PATH is Node's own word for such a folder.
MODULES = Path(os.environ.get("NODE_PATH") or "node_modules")
AXE = MODULES / "axe-core" / "axe.min.js"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
#: Chromium's PreferredColorScheme.
DARK, LIGHT = 0, 1
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_PROBE = """<script>axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const result = {wide: document.documentElement.scrollWidth - window.innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    violations: found.violations.map(v => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 200)])};
  const told = document.createElement("pre");
  told.id = "axe-result";
  told.textContent = encodeURIComponent(JSON.stringify(result));
  document.body.replaceChildren(told);
});</script></body>"""


def missing():
    """What keeps these tests from running, empty when nothing does."""
    if BROWSER is None:
        return "no Chromium on PATH"
    return "" if AXE.is_file() else "no axe-core below NODE_PATH (tox -e browser installs it)"


def look(page: Path, width: int, scheme: int):
    """Open a page in a window of that width; what axe says of it, and by how many pixels it is too wide.

    The page itself needs no script; the probe is put into a copy beside it.
    """
    axe = AXE.read_text("utf-8").replace("</script", "<\\/script")
    copy = page.with_name(f"probe-{os.getpid()}-{page.name}")
    copy.write_text(page.read_text("utf-8").replace("</body>", f"<script>{axe}</script>{_PROBE}"), "utf-8")
    words = [BROWSER, *_FLAGS, f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},1000",
             "--virtual-time-budget=20000", "--dump-dom", copy.resolve().as_uri()]  # fmt: skip
    try:
        dom = subprocess.run(words, capture_output=True, text=True, timeout=180, check=True).stdout
    finally:
        copy.unlink()
    told = re.search(r'id="axe-result">([^<]*)</pre>', dom)
    assert told is not None, dom[-2000:]
    from urllib.parse import unquote

    return json.loads(unquote(told[1]))
