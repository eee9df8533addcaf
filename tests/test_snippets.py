"""The Python blocks of README and documentation run as they stand, in the order of their page."""

import re

import pytest
import tensorflow as tf
from runs import ROOT

PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def blocks(page):
    """The code of each block, with the empty lines above it that make errors name the page's line."""
    text = (ROOT / page).read_text()
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in BLOCK.finditer(text)]


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


@pytest.fixture
def here(tmp_path, monkeypatch, two_replicas):
    """A temporary working folder, from which the paths in the pages can be read; and two devices."""
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: two_replicas)
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    monkeypatch.chdir(tmp_path)


def run(codes, page):
    names = {"__name__": "__main__"}
    for code in codes:
        exec(compile(code, ROOT / page, "exec"), names)
    return names


def test_which_pages_have_blocks():
    guides = ("distributed", "features", "weight_function", "your_data")
    expected = {"README.md", *(f"docs/{name}.md" for name in guides)}
    assert set(WITH_BLOCKS) == expected


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_of_a_page(page, here):
    run(blocks(page), page)


@pytest.mark.parametrize(("method", "low", "high"), [("mwnet", 0.85, 1), ("erm", 0.6, 0.78)])
def test_what_the_readme_says_of_its_block(method, low, high, here, capsys):
    """It says 0.91 and 0.71."""
    (code,) = blocks("README.md")
    assert 'about 0.91; with "erm" about 0.71' in code
    if method == "erm":
        code = code.replace('"mwnet"', '"erm"').replace("meta_data=(x[meta], true[meta]), ", "")
    run([code], "README.md")
    accuracy = float(re.search(r"'accuracy': ([\d.]+)", capsys.readouterr().out)[1])
    assert low < accuracy < high
