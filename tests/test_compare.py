"""Runs side by side: means and deviations by hand, files, and bad input."""

import csv
import json

import numpy as np
import pytest

from tf_mwnet.reports import compare


@pytest.fixture
def runs(tmp_path):
    """Four run folders as runs leave them: two noise rates, two seeds, two methods."""
    for rate in (0.2, 0.4):
        for seed in (0, 1):
            folder = tmp_path / f"run_{rate}_{seed}"
            folder.mkdir()
            config = {
                "noise": "flip",
                "noise_rate": rate,
                "seed": seed,
                "data_seed": seed,
                "method": "mwnet",
            }
            (folder / "config.json").write_text(json.dumps(config))
            base = 0.5 - rate + 0.02 * seed
            methods = {
                name: {"last": base + gain, "mean_last_5": base, "best": 0.9, "best_epoch": 3}
                for name, gain in (("erm", 0.0), ("mwnet", 0.1))
            }
            methods["mwnet"]["auc_loss"] = 0.8
            (folder / "result.json").write_text(json.dumps({"methods": methods}))
            np.savez(folder / "split.npz", train_true_y=np.array([0] * 9 + [1] * 3))
    return tmp_path


def test_table_files_and_picture(runs, capsys):
    arguments = [f"--runs={runs}/run_0.2*,{runs}/run_0.4*", "--by=noise,noise_rate"]
    assert compare.main([*arguments, f"--csv={runs}/out/all.csv", f"--png={runs}/out/all.png"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # Seeds give 30 and 32 % for erm at 0.2: mean 31, deviation of the sample sqrt(2).
    assert lines[2] == "flip 0.2 erm 31.00 ± 1.41 31.00 ± 1.41 90.00 ± 0.00 2"
    assert lines[5] == "flip 0.4 mwnet 21.00 ± 1.41 11.00 ± 1.41 90.00 ± 0.00 2"
    with open(runs / "out" / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[1]["method"] == "mwnet"
    assert (float(rows[1]["last"]), rows[1]["auc_loss"], rows[1]["best_epoch"]) == (0.4, "0.8", "3")
    assert (runs / "out" / "all.png").read_bytes().startswith(b"\x89PNG")


def test_imbalance_is_measured(runs, capsys):
    assert compare.main([f"--runs={runs}/run_0.2_0", "--by=imbalance"]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert " ".join(row.split()) == "3.0 erm 30.00 30.00 90.00 1"


def test_a_real_run(finished, capsys):
    assert compare.main([f"--runs={finished}"]) == 0
    result = json.loads((finished / "result.json").read_text())["methods"]
    lines = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()[2:]}
    for name in ("erm", "mwnet"):
        assert lines[name][2] == f"{100 * result[name]['last']:.2f}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs=nothing/*"], "no run matches 'nothing/*'"),
        (["--runs={}/run_0.2_0", "--by=colour"], "a run has no 'colour'; allowed: noise,"),
        (["--runs={}"], "holds no finished run"),
        (["--runs={}/run_0.2_0", "--png={}/a.png", "--x=noise"], "allowed for x: a field of numbers"),
        (["--colour=red"], "colour"),
        (["stray"], "'stray'"),
    ],
)
def test_bad_input(runs, arguments, message, capsys):
    assert compare.main([a.format(runs) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert message in line
    assert not list(runs.glob("*.png"))


def test_help(capsys):
    assert compare.main(["--help"]) == 0
    assert "--runs" in capsys.readouterr().out


def test_options_of_a_method_are_fields(runs):
    """Also in a run of version 0.1, which had them among its own settings."""
    for seed, own in ((0, {"method_options": {"gdw": {"eta": 1000.0}}}), (1, {"eta": 10.0})):
        path = runs / f"run_0.2_{seed}" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"method": "gdw"} | own))
        result = {"methods": {"gdw+FT": {"last": 0.5, "mean_last_5": 0.5, "best": 0.5, "best_epoch": 1}}}
        (path.parent / "result.json").write_text(json.dumps(result))
    rows = [row for seed in (0, 1) for row in compare.read_run(runs / f"run_0.2_{seed}")]
    assert [row["eta"] for row in rows] == [1000, 10]
    assert [row["clip"] for row in rows] == [0.2, 0.2]
    assert list(compare.group(rows, ["eta"])) == [(10, "gdw+FT"), (1000, "gdw+FT")]
