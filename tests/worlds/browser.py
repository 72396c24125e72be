"""A page looked at by a real browser at the width of a telephone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LOOK = """<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target.outerHTML).slice(0, 200)), true);
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const images = [...document.images], inside = e => e.closest(".scroll, pre");
  const wide = [...document.body.querySelectorAll("*")].filter(
    e => !inside(e) && e.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage(JSON.stringify({
    width: innerWidth, content: document.documentElement.scrollWidth, images: images.length, errors,
    missing: images.filter(i => !i.complete || !i.naturalWidth).length,
    wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)),
    links: [...document.querySelectorAll("a[href^='#']")].filter(
      a => !document.getElementById(a.hash.slice(1))).length
  }), "*");
});
</script>"""


def looked_at(page: Path, folder: Path, width: int = 400) -> dict:
    """What a browser found, all unfolded: widths, images, missing ones, script errors, elements beyond the edge, dead links.

    The page is copied with a script that measures it into a frame of the wanted width.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome on this machine to look at the page")
    html = page.read_text(encoding="utf-8")
    (folder / "measured.html").write_text(html.replace("<head>", f"<head>{LOOK}", 1), encoding="utf-8")
    (folder / "frame.html").write_text(
        f'<iframe src="measured.html" style="width:{width}px;height:800px;border:0"></iframe><p id="out"></p>'
        '<script>onmessage = e => document.getElementById("out").textContent = e.data</script>'
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    options += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [browser, *options, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=200
    )
    found = re.search(r'<p id="out">(\{.*?\})</p>', done.stdout, re.S)
    assert found, f"the browser said nothing: {done.stderr[-500:]}"
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
