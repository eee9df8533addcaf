"""The documents' examples run, and find what they say they find."""

import os
import re
import subprocess
import sys

import pytest
from runs import ROOT


@pytest.mark.parametrize(("name", "least"), [("tabular", 75), ("text", 70)])
def test_example(tmp_path, name, least):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / f"{name}.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    match = re.search(r"(\d+) labels are wrong; of the \1 that look worst, (\d+) % are", done.stdout)
    assert int(match.group(2)) >= least, done.stdout
