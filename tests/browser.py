"""A report page opened in a real browser without a window."""

import html
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
    t => t.closest(".table").querySelector("h3").textContent.startsWith("Labels"));
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
  const tools = table.closest(".table").querySelector(".tools");
  const words = tools.querySelector("input");
  words.value = ids[3] + " train";
  words.dispatchEvent(new Event("input"));
  const fit = Array.from(table.tBodies[0].rows).filter(r => !r.hidden);
  const left = fit.map(r => r.cells[names].textContent);
  const count = tools.querySelector("output").textContent;
  const links = Array.from(table.querySelectorAll("td a")).map(
    a => document.getElementById(a.hash.slice(1)).textContent.split(".")[0] === a.textContent);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const levels = Array.from(document.querySelectorAll("h1, h2, h3, h4")).map(h => Number(h.tagName[1]));
  const images = Array.from(document.images).map(i => i.naturalWidth);
  const all = {problems, images, before, orders, ids, left, count, links, wide, levels};
  parent.postMessage(JSON.stringify(all), "*");
});
</script>"""

FRAME = """<body><script>
window.addEventListener("message", e => {
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = e.data;
  document.body.appendChild(out);
});
</script><iframe src="page.html" style="width:WIDTHpx;height:800px"></iframe>"""


def exercise(page, folder, width=1280):
    """Opens a copy of a page in ``folder``, sorts its table of labels, and returns what was seen.

    The window cannot be as narrow as a phone; a frame in it can.
    """
    text = page.read_text()
    text = text.replace("<head>", f"<head>{COLLECT}").replace("</body>", f"{EXERCISE}</body>")
    (folder / "page.html").write_text(text)
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
         f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
         "--dump-dom", f"file://{folder / 'frame.html'}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    return json.loads(html.unescape(found.group(1)))
