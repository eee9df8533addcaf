"""A report page opened in a real browser without a window."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
# Put into a copy of the page: collects errors from the start, then sorts and looks at the pictures.
COLLECT = """<script>
window.problems = [];
window.addEventListener("error", e => problems.push(String(e.message)), true);
console.error = (...a) => problems.push(a.join(" "));
</script>"""
EXERCISE = """<script>
window.addEventListener("load", () => {
  const table = Array.from(document.querySelectorAll("table")).find(
    t => t.caption.textContent.startsWith("Labels"));
  const heads = Array.from(table.querySelectorAll("th"));
  const place = heads.findIndex(th => th.textContent === "label quality");
  const column = () => Array.from(table.tBodies[0].rows).map(r => r.cells[place].textContent);
  const before = column(), orders = [];
  for (let i = 0; i < 2; i++) {
    heads[place].querySelector("button").click();
    orders.push({sort: heads[place].getAttribute("aria-sort"), values: column()});
  }
  const names = heads.findIndex(th => th.textContent === "id");
  heads[names].querySelector("button").click();
  const ids = Array.from(table.tBodies[0].rows).map(r => r.cells[names].textContent);
  const images = Array.from(document.images).map(i => i.naturalWidth);
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify({problems, images, before, orders, ids});
  document.body.appendChild(out);
});
</script>"""


def exercise(page, folder):
    """Opens a copy of a page in ``folder``, sorts its table of labels, and returns what was seen."""
    text = page.read_text()
    text = text.replace("<head>", f"<head>{COLLECT}").replace("</body>", f"{EXERCISE}</body>")
    (folder / "page.html").write_text(text)
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder / 'page.html'}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S).group(1))
