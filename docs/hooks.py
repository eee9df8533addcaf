"""Hooks of the documentation site: links into the repository, and lists made from the code."""

from __future__ import annotations

import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Points links that leave docs/ to the repository, and inserts the lists of flags and options."""
    if "<!-- flags -->" in markdown:
        markdown = markdown.replace("<!-- flags -->", flags()).replace("<!-- options -->", options())
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def pointed(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if target.startswith("docs/") and not target.startswith("docs/examples/"):
            return match[0]
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to '{match[2]}', which is not there")
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{match[1]}{config.extra['repository']}/{kind}/main/{target}{match[3] or ''})"

    out, place = [], 0
    for fence in FENCE.finditer(markdown):  # no links in code
        out += [LINK.sub(pointed, markdown[place : fence.start()]), fence[0]]
        place = fence.end()
    return "".join([*out, LINK.sub(pointed, markdown[place:])])


def flags() -> str:
    """Returns the flags as ``python -m tf_mwnet.main --help`` prints them."""
    from tf_mwnet.cli.flags import help_text

    text = help_text("").partition("Options of methods")[0].strip()
    return f"```text\n{text}\n```"


def options() -> str:
    """Makes a table of the options of each method."""
    from tf_mwnet.methods import METHODS, options

    rows = ["| method | option | default | allowed | |", "| --- | --- | --- | --- | --- |"]
    for name, kind in METHODS.items():
        for option in kind.options:
            default = options.default_text(kind, option.name)
            allowed = option.allowed or "any"
            rows.append(f"| `{name}` | `--{option.name}` | {default} | {allowed} | {option.help} |")
    return "\n".join(rows)
