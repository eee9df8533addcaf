"""The documents' examples run, and find what they say they find."""

import json
import os
import re
import subprocess
import sys

import pytest
from runs import ROOT


def example(name, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / f"{name}.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("tabular", 75), ("text", 70)])
def test_example(tmp_path, name, least):
    printed = example(name, tmp_path)
    match = re.search(r"(\d+) labels are wrong; of the \1 that look worst, (\d+) % are", printed)
    assert int(match.group(2)) >= least, printed


@pytest.mark.slow
def test_the_example_of_a_new_method(tmp_path):
    """It is trained under its name, and its option is written down with the run."""
    printed = example("confident", tmp_path)
    assert re.findall(r"(confident --power=[\d.]+): [\d.]+ %", printed) == [
        "confident --power=0",
        "confident --power=0.5",
    ]
    config = json.loads((tmp_path / "runs" / "digits-confident-2" / "config.json").read_text())
    assert config["method_options"] == {"confident": {"power": 0.5}}
