"""Pages in a real browser: headless Chromium, at the width of a desk and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
WHY_NOT = "there is no chromium on PATH to look at pages with; on Debian: apt-get install chromium"
WIDTHS = (1280, 390)

LISTEN = """<script>
window.problems = [];
addEventListener("error", function (e) { problems.push(String(e.message || e.target.tagName)); }, true);
addEventListener("securitypolicyviolation", function (e) { problems.push("blocked " + e.blockedURI); });
</script>"""
PROBE = """<script>
addEventListener("load", function () {
  var more = (function () { %s })(), wide = document.documentElement.clientWidth;
  parent.postMessage(JSON.stringify(Object.assign({
    width: innerWidth, client: wide, scroll: document.documentElement.scrollWidth, problems: problems,
    out: Array.from(document.querySelectorAll("main *")).filter(function (e) {
      if (e.closest("thead") && wide < 860) return false;  // clipped to nothing there: the cells carry its words
      var box = e.getBoundingClientRect(); return box.width > 1 && (box.right > wide + 1 || box.left < -1);
    }).map(function (e) { return e.tagName + "." + e.getAttribute("class"); }),
    loaded: Array.from(document.images).every(function (i) { return i.complete && i.naturalWidth > 0; }),
    fetched: performance.getEntriesByType("resource").map(function (e) { return e.name; })
      .filter(function (name) { return name.slice(0, 5) !== "data:"; })
  }, more)), "*");
});
</script>"""
FRAMES = """<!doctype html><pre id="out"></pre><script>
addEventListener("message", function (e) { document.getElementById("out").textContent += e.data + "\\n"; });
</script>""" + "".join(f'<iframe src="looked-at.html" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS)
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --hide-scrollbars --window-size=1400,1800 --virtual-time-budget=8000"


def looked_at(page: str, folder: Path, script: str = "return {};") -> dict[int, dict[str, Any]]:
    """What a copy of a page tells of itself at each width, and what ``script``, the body of a function, returns in it.

    Returns:
        By width: ``client`` and ``scroll`` width, ``out``, the elements that stick out, ``loaded``, whether all pictures are there,
        ``fetched``, addresses that were asked for, and ``problems``, errors of scripts and of the page's policy.
    """
    assert CHROMIUM
    held = page.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", PROBE % script + "</body>", 1)
    (folder / "looked-at.html").write_text(held, encoding="utf-8")
    (folder / "frames.html").write_text(FRAMES, encoding="utf-8")
    command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    out = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, done.stderr
    seen = {one["width"]: one for one in map(json.loads, html.unescape(out[1]).strip().splitlines())}
    assert set(seen) == set(WIDTHS), done.stderr
    return seen


def assert_fits(seen: dict[int, dict[str, Any]]) -> None:
    """Nothing sticks out at any width, all is there, nothing was asked for elsewhere, and no script has failed."""
    for width, one in seen.items():
        assert one["scroll"] <= one["client"] == width
        assert one["out"] == []
        assert one["loaded"] and one["fetched"] == [] and one["problems"] == []
