"""A sweep compiled for a cluster: the same runs and the same table as here."""

import csv
import json
import pathlib
import shlex

import pytest
import yaml
from kfp import components as engine
from runs import SHORT

from pipelines import compile as compiling
from pipelines import graph, work
from pipelines import run as running
from tf_mwnet.sweep import __main__ as sweep

LINES = [
    "--methods=erm,mwnet",
    "--seeds=0",
    "--setting=flip: --noise=flip2 --noise_rate=0.4 --meta_size=50",
    "--setting=no meta: --noise=flip2 --noise_rate=0.4 --meta_size=0",
    *SHORT,
]


@pytest.fixture
def flagfile(tmp_path):
    path = tmp_path / "small.cfg"
    path.write_text("\n".join([*LINES, "--jobs=2", f"--out={tmp_path / 'runs'}"]))
    return path


def test_a_parallel_loop_over_the_runs(flagfile, tmp_path):
    path = tmp_path / "sweep.yaml"
    assert compiling.main([f"--sweep={flagfile}", f"--output={path}"]) == 0
    assert engine.load_component_from_file(str(path)).name == "tf-mwnet-small"
    spec = yaml.safe_load(path.read_text())
    (loop,) = (task for name, task in spec["root"]["dag"]["tasks"].items() if "loop" in name)
    assert loop["iteratorPolicy"] == {"parallelismLimit": 2}
    items = json.loads(loop["parameterIterator"]["items"]["raw"])
    assert [(i["folder"], i["method"]) for i in items] == [
        (f"{setting}-{method}-0", method)
        for setting in ("flip", "no_meta")
        for method in ("erm", "mwnet")
    ]
    assert "--noise_rate=0.4" in shlex.split(items[0]["flags"])
    container = spec["deploymentSpec"]["executors"]["exec-sweep-run"]["container"]
    assert {"name": "TF_NUM_INTRAOP_THREADS", "value": "1"} in container["env"]
    assert container["resources"]["resourceCpuLimit"] == "1"
    assert spec["root"]["dag"]["tasks"]["sweep-table"]["dependentTasks"] == ["for-loop-2"]


@pytest.mark.slow
def test_the_loop_has_the_results_of_the_command(flagfile, tmp_path):
    """On Kubeflow's own engine, here; MW-Net without a meta set is left out."""
    lines = ["--methods=mwnet", *LINES[1:]]
    flagfile.write_text("\n".join([*lines, "--jobs=2", f"--out={tmp_path / 'runs'}"]))
    assert sweep.main([f"--flagfile={flagfile}", f"--csv={tmp_path / 'here.csv'}"]) == 0
    values = sweep.define_flags()
    jobs = sweep.jobs_of(values, values([" ", *lines], known_only=True)[1:])
    home = tmp_path / "home"
    home.mkdir()
    running._execute(graph.build_sweep("small", jobs, 2, 1, 0, {"home": "", "code": ""}), home)
    (made,) = home.glob("artifacts/**/results.csv")
    with open(tmp_path / "here.csv") as here, open(made) as there:
        expected = sorted(csv.DictReader(here), key=str)
        assert sorted(csv.DictReader(there), key=str) == expected
    assert [(row["setting"], row["method"]) for row in expected] == [("flip", "mwnet")]
    text = (made.parent / "table.md").read_text()
    assert "no_meta-mwnet-0 left out: " in text
    assert (made.parent / "results.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lr=0.1"], "'--lr=0.1' is given with --sweep; allowed: in '"),
        (["--margin=0.1"], "'--margin' is given with --sweep"),
        (["--sweep=nowhere.cfg"], "nowhere.cfg"),
    ],
)
def test_bad_flags(more, message, flagfile, tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    assert compiling.main([f"--sweep={flagfile}", f"--output={path}", *more]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not path.exists()


def test_no_result_at_all(tmp_path):
    class Folder:
        path = str(tmp_path / "one")

    pathlib.Path(Folder.path).mkdir()
    facts = {"folder": "a", "setting": "s", "method": "erm", "label": "erm", "problem": "left out: x"}
    (tmp_path / "one" / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="no run has a result: left out: x"):
        work.WORK["sweep_table"]([Folder], ["s"], Folder, Folder)
