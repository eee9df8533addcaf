"""Sweeps: plans, real runs in processes of their own, going on, and what is left out."""

import csv
import fcntl
import json
import os
import shlex
import signal

import numpy as np
import pandas as pd
import pytest
from runs import ROOT, SHORT, command, wait_for

from tf_mwnet import Experiment, UserError, data
from tf_mwnet.cli.flagfiles import expand
from tf_mwnet.main import main
from tf_mwnet.methods import METHODS
from tf_mwnet.reports import matching, published
from tf_mwnet.sweep import __main__ as sweep
from tf_mwnet.sweep import jobs, plan
from tf_mwnet.sweep.page import Page

SETTINGS = {"flip": ["--noise=flip2"], "no meta": ["--noise=none", "--meta_size=0"]}


def test_plan(tmp_path):
    methods = ["erm", "s_model --s_model_init=confusion"]
    jobs = plan.plan(tmp_path, methods, [3, 4], SETTINGS, ["--epochs=2"])
    assert [j.folder.name for j in jobs[:4]] == [
        "flip-erm-3",
        "flip-s_model_confusion_-3",
        "no_meta-erm-3",
        "no_meta-s_model_confusion_-3",
    ]
    assert (jobs[1].setting, jobs[1].method, jobs[1].label) == ("flip", "s_model", "s_model (confusion)")
    config = jobs[-1].config()
    assert (config.seed, config.data_seed, config.epochs, config.meta_size) == (4, 4, 2, 0)
    assert config.method == "s_model"
    assert config.options_of("s_model") == {"s_model_init": "confusion"}
    (own,) = plan.plan(tmp_path, ["erm"], [3], {"split 7": ["--noise=flip", "--data_seed=7"]})
    assert (own.config().seed, own.config().data_seed) == (3, 7)  # a setting's own seed stays
    settings = {"a": [], "b": ["--noise=none", "--methods=gdw,mwnet --meta_labels=noisy"]}
    found = plan.plan(tmp_path, ["erm"], [0], settings)
    assert [(j.setting, j.label) for j in found] == [("a", "erm"), ("b", "gdw"), ("b", "mwnet (noisy)")]
    assert [j.config().meta_labels for j in found] == ["auto", "auto", "noisy"]
    with pytest.raises(UserError, match="unknown method 'mwnt'"):
        plan.plan(tmp_path, ["mwnt"], [0], SETTINGS)
    with pytest.raises(UserError, match="unknown method 'mwnt'"):
        plan.plan(tmp_path, ["erm"], [0], {"a": ["--methods=mwnt"]})
    with pytest.raises(UserError, match="noise_rate is 2"):
        plan.plan(tmp_path, ["erm"], [0], {"bad": ["--noise_rate=2"]})


def test_labels_name_flags_whose_values_are_the_same(tmp_path):
    def labels(*methods):
        planned = plan.plan(tmp_path, methods, [0], {"a": []})
        assert len({job.folder for job in planned}) == len(planned)
        return [job.label for job in planned]

    assert labels("mwnet --meta_lr=0.01", "mwnet --lr=0.01", "mwnet --lr=0.1", "erm --lr=0.01") == [
        "mwnet (meta_lr=0.01)",
        "mwnet (lr=0.01)",
        "mwnet (0.1)",
        "erm (0.01)",
    ]
    of_before = ["cmwnet_sl --mixup=1 --meta_mixup=1 --ema=0.97", "mwnet --meta_late", "mwnet"]
    assert labels(*of_before) == ["cmwnet_sl (1, 1, 0.97)", "mwnet (meta_late)", "mwnet"]


@pytest.mark.parametrize(
    ("methods", "seeds", "settings"),
    [
        (["erm"], [0, 1, 0], {"a": []}),
        (["erm", "mwnet", "erm"], [0], {"a": []}),
        (["mwnet --lr=0.1", "mwnet  --lr=0.1"], [0], {"a": []}),
        (["erm"], [0], {"a b": [], "a_b": ["--noise=flip"]}),
    ],
)
def test_two_runs_for_one_folder(tmp_path, methods, seeds, settings):
    with pytest.raises(UserError, match=r"two runs have the folder '.*-0'; allowed: each seed, setting"):
        plan.plan(tmp_path, methods, seeds, settings)


def test_how_long_a_sweep_takes(tmp_path, caplog):
    done = [jobs.Job(tmp_path / str(i), "a", "erm", "erm", ()) for i in range(2)]
    with caplog.at_level("INFO", "absl"):
        jobs.execute(done, lambda todo: ((job, "", 1.0) for job in todo))
    said = [record.getMessage() for record in caplog.records]
    assert said == ["1 of 2: 0 done (1 s); under 1 min left", "2 of 2: 1 done (1 s)"]
    assert jobs.how_long(150) == "about 2 min left"


def test_how_far_a_run_is(tmp_path):
    assert jobs.how_far(tmp_path) == ""
    config = Experiment(method="mwnet", compare="erm", epochs=7, lr_drops=())
    (tmp_path / "config.json").write_text(config.to_json())
    for method, epochs in (("erm", 7), ("mwnet", 3)):
        path = tmp_path / method / "metrics.csv"
        path.parent.mkdir()
        path.write_text("epoch,test_accuracy\n" + "".join(f"{i},0.5\n" for i in range(1, epochs + 1)))
        os.utime(path, ns=(epochs, 10**18 - 10**9 * epochs))  # plain training is first
    assert jobs.how_far(tmp_path) == "mwnet, epoch 3 of 7"
    (tmp_path / "result.json").write_text("{}")
    assert jobs.how_far(tmp_path) == ""


def test_a_folder_is_the_same_sweeps_whatever_the_order_of_flags(tmp_path):
    def keep(*flags, folder="run"):
        plan.keep_plan(tmp_path, plan.plan(tmp_path, ["erm"], [0], {folder: []}, flags))

    keep("--epochs=3", "--lr=0.2")
    keep("--lr=0.2", "--epochs=3")
    keep("--lr=0.2", "--epochs=3", "--momentum=0.9")  # the default
    written = json.loads((tmp_path / plan.PLAN).read_text())
    assert list(written) == ["run-erm-0"]
    assert written["run-erm-0"][:2] == ["--epochs=3", "--lr=0.2"]
    for flags in (("--lr=0.2", "--epochs=4"), ("--epochs=3",)):
        with pytest.raises(UserError, match="belongs to a sweep with other flags"):
            keep(*flags)
    of_before = {"run-erm-0": ["--a_flag_that_is_gone=1"]}
    (tmp_path / plan.PLAN).write_text(json.dumps(of_before))
    with pytest.raises(UserError, match="a_flag_that_is_gone=1"):
        keep("--epochs=3", "--lr=0.2")


@pytest.mark.slow
def test_a_sweep_writes_no_notes_of_tensorflow(tmp_path):
    flags = shlex.join([*SHORT, "--network=linear"])
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    line = ["--methods=erm", "--seeds=0", f"--flags={flags}", f"--out={tmp_path / 'out'}"]
    started = command(*line, module="tf_mwnet.sweep", env=environment)
    printed, notes = started.communicate(timeout=300)
    assert started.returncode == 0, notes
    assert "erm" in printed
    assert all(line.startswith("tf_mwnet: ") for line in notes.splitlines()), notes


@pytest.mark.slow
def test_a_sweep_in_the_background_of_a_script_ends_on_sigterm(tmp_path):
    """Its runs do too, though SIGINT is ignored there."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = ["--methods=erm,gce", "--seeds=0", "--flags=--epochs=1000", f"--out={tmp_path / 'out'}"]
    try:
        process = command(*line, module="tf_mwnet.sweep")
    finally:
        signal.signal(signal.SIGINT, before)
    folder = tmp_path / "out" / "default-erm-0"
    wait_for(folder / "erm" / "metrics.csv", process)
    process.terminate()
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, text
    assert text.endswith("tf_mwnet: stopped by SIGTERM\n")
    with (folder / ".lock").open() as lock:  # the run has ended
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (folder / "result.json").exists()


@pytest.mark.slow
def test_a_sweep_from_start_to_end(tmp_path, capsys):
    out = tmp_path / "sweep"
    line = [
        "--methods=erm --then_fine_tune=4,erm,mwnet", "--seeds=0,1", f"--out={out}", "--jobs=2",
        f"--flags={shlex.join([*SHORT, '--network=mlp'])}",
        *(f"--setting={name}: {shlex.join(own)}" for name, own in SETTINGS.items()),
        f"--csv={tmp_path / 'all.csv'}", f"--md={tmp_path / 'table.md'}",
        f"--png={tmp_path / 'all.png'}", f"--page={tmp_path / 'page'}",
    ]  # fmt: skip
    assert sweep.main(line) == 0
    printed = capsys.readouterr().out
    assert "no_meta-mwnet-0 left out: method 'mwnet' needs a meta set and meta_size is 0" in printed
    assert "no_meta-erm_4_-1 left out: then_fine_tune is 4 without a meta set" in printed
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    found = sorted((r["setting"], r["method"], r["seed"]) for r in rows)
    expected = [("flip", m, s) for m in ("erm", "erm+FT", "mwnet") for s in "01"]
    assert found == [*expected, ("no meta", "erm", "0"), ("no meta", "erm", "1")]
    result = json.loads((out / "flip-mwnet-1" / "result.json").read_text())
    last = next(r["last"] for r in rows if (r["method"], r["seed"]) == ("mwnet", "1"))
    assert float(last) == pytest.approx(result["methods"]["mwnet"]["last"], abs=1e-5)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0].startswith(
        "| method | flip: last | flip: mean of last 5 | flip: best epoch | no meta: last"
    )
    names = [line.split(" | ")[0] for line in table[2:]]
    assert names == ["| mwnet", "| erm", "| erm+FT"]
    assert [line.split()[1] for line in printed.splitlines()[2:5]] == ["mwnet", "erm", "erm+FT"]
    assert table[2].endswith("| - | - | - |")
    assert (tmp_path / "all.png").stat().st_size > 5000

    page = (tmp_path / "page" / "index.html").read_text()
    assert "8 of 12 runs are done" in page
    assert 'http-equiv="refresh"' not in page
    states = list(csv.DictReader((tmp_path / "page" / "runs.csv").open()))
    assert [s["state"] for s in states if s["method"] == "mwnet" and s["setting"] == "flip"] == [
        "done"
    ] * 2
    assert sum(s["state"].startswith("left out: method 'mwnet' needs") for s in states) == 2

    # Again: what is finished is left alone, what was cut off is continued.
    before = (out / "flip-erm-0" / "result.json").stat().st_mtime_ns
    (out / "flip-mwnet-1" / "result.json").unlink()
    assert sweep.main(line) == 0
    assert (out / "flip-erm-0" / "result.json").stat().st_mtime_ns == before
    again = json.loads((out / "flip-mwnet-1" / "result.json").read_text())
    assert again["methods"]["mwnet"]["last"] == result["methods"]["mwnet"]["last"]

    assert sweep.main([*line[:4], "--flags=--epochs=2", *line[5:]]) == 2
    assert "belongs to a sweep with other flags" in capsys.readouterr().err


@pytest.mark.slow
def test_values_of_flags(tmp_path, capsys):
    (tmp_path / "run.cfg").write_text("--epochs=2\n--steps_per_epoch=3\n--compare=erm\n--method=mwnet\n")
    out = tmp_path / "out"
    line = [f"--flagfile={tmp_path / 'run.cfg'}", "--network=mlp", "--set", "noise_rate=0.2,0.4",
            "--set=meta_size=20", "--seeds=0", f"--out={out}"]  # fmt: skip
    assert sweep.main(line) == 0
    printed = capsys.readouterr().out
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/config.json")}
    settings = {(c["noise_rate"], c["meta_size"], c["method"], c["epochs"]) for c in found.values()}
    assert settings == {(r, 20, m, 2) for r in (0.2, 0.4) for m in ("erm", "mwnet")}
    assert "noise_rate_0.2_meta_size_20-erm-0" in found
    assert printed.count("noise_rate=0.4 meta_size=20") == 2


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--set=noise_rate", "set is 'noise_rate'; allowed: <flag>=<values between commas>"),
        ("--set=noise_rates=0.2", "noise_rates"),
        ("--epohcs=3", "epohcs"),
        ("--methods=erm,mwnt", "unknown method 'mwnt' (did you mean 'mwnet'?)"),
        ("--methods=,", "there are no seeds or no methods"),
        ("--seeds=0,x", "seeds is '0,x'; allowed: integers"),
        ("--jobs=0", "jobs is 0; allowed: at least 1"),
        ("--setting=flip2", "setting is 'flip2'; allowed: <name>: <flags>"),
        ("--setting=a: --noise_rate=2", "noise_rate is 2"),
        (["--setting=a:", "--setting=a : --lr=1"], "setting is 'a' twice; allowed: names that differ"),
        (["--set=lr=1", "--set=lr=2"], "set has 'lr' twice; allowed: all its values between commas"),
        ("--flags=--epohcs=3", "epohcs"),
        ("--nonsense", "nonsense"),
    ],
)
def test_bad_input(tmp_path, capsys, flag, message):
    flags = [flag] if isinstance(flag, str) else flag
    assert sweep.main([f"--out={tmp_path / 'out'}", *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def planned(name):
    values = sweep.define_flags()
    path = ROOT / "configs" / "sweeps" / name
    common = sweep.command_flags.read_flags(values, expand([f"--flagfile={path}"]), more=True)
    return values, sweep.jobs_of(values, common)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "sweeps").glob("*.cfg")), ids=lambda p: p.name
)
def test_flagfiles_of_sweeps(path, monkeypatch):
    """Each says its command, and every run of it has flags that are allowed."""
    monkeypatch.chdir(ROOT)  # where the command is run
    assert (
        f"# Command: python -m tf_mwnet.sweep --flagfile=configs/sweeps/{path.name}" in path.read_text()
    )
    _, jobs = planned(path.name)
    assert len({job.folder for job in jobs}) == len(jobs) > 1


def test_sweep_of_all_methods():
    values, jobs = planned("digits_all_methods.cfg")
    methods = plan.method_names(values.methods)
    assert set(METHODS) <= set(methods)
    assert len(jobs) == 3 * 3 * len(methods)


@pytest.mark.slow
def test_published_columns(monkeypatch):
    """Each method of each is what a published number's command asks for."""
    monkeypatch.chdir(ROOT)
    _, jobs = planned("published.cfg")
    facts = {"shape": (32, 32, 3), "train_examples": 49_000}
    missing = set()
    for job in jobs:
        ran = matching.resolved(job.config(), facts, job.method) | facts
        ran = json.loads(json.dumps(ran))
        if job.folder.name.endswith("-0") and not published.of_run(ran, ROOT):
            missing.add((job.setting, job.method))
    # Not in these papers' tables, but beside them; GDW has curves of one more setting.
    extra = {(s, m) for s, m in missing if m == "erm" and s.startswith(("RMNW-Net", "GDW"))}
    extra |= {("GDW CIFAR-10 uniform 40 %", m) for m in ("mwnet", "gdw")}
    assert missing == extra
    assert len(jobs) == 5 * len({(job.setting, job.label) for job in jobs})


def test_a_page_while_a_sweep_goes_on(tmp_path):
    done, going, waiting = plan.plan(tmp_path, ["erm"], [0, 1, 2], {"a": ["--epochs=9", "--lr_drops=5"]})
    for job, name, text in (
        (
            done,
            "result.json",
            json.dumps({"methods": {"erm": {"last": 0.5, "best": 0.75}}, "noise_rate": 0}),
        ),
        (going, "config.json", going.config().to_json()),
        (going, "erm/metrics.csv", "epoch,test_accuracy\n1,0.1\n2,0.2\n"),
    ):
        (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (job.folder / name).write_text(text)
    told = Page(tmp_path / "page", [done, going, waiting])
    told({}, "about 3 min left")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "1 of 3 runs are done, about 3 min left." in page
    assert '<meta http-equiv="refresh" content="60">' in page
    assert "erm, epoch 2 of 9" in page
    frame = pd.read_csv(tmp_path / "page" / "runs.csv")
    assert frame.state.tolist() == ["done", "erm, epoch 2 of 9", "waiting"]
    assert frame["last"].tolist()[0] == 50
    told({going: "failed: x", waiting: "left out: y"}, "")
    assert "http-equiv" not in (tmp_path / "page" / "index.html").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(UserError, match="holds files that are no report"):
        Page(tmp_path / "mine", [done])


def test_sweep_of_a_figure(monkeypatch):
    """A setting's recipe names methods, which give way to the sweep's."""
    monkeypatch.chdir(ROOT)
    _, jobs = planned("rmnw_figure2.cfg")
    assert len(jobs) == 3 * 8 * 4
    for job in jobs:
        config = job.config()
        assert config.compare == ""
        assert config.meta_labels == ("clean" if config.method == "mwnet" else "noisy")
        assert config.network == ("wrn28_10" if config.noise == "uniform" else "resnet32")


def test_runs_on_the_same_data_share_it(tmp_path, monkeypatch, pictures_not_rendered):
    read = []
    load = data.load

    def counted(source, *others, **named):
        read.append(source)
        return load(source, *others, **named)

    monkeypatch.setattr(data, "load", counted)
    jobs._last_data.cache_clear()
    small = ("--epochs=1", "--steps_per_epoch=2", "--network=linear", "--method=erm")
    sets = {"a": ("--noise_rate=0.4",), "b": ("--noise_rate=0.4",), "c": ("--blank_images=keep",)}
    for name, flags in sets.items():
        done = jobs.work(jobs.Job(tmp_path / name, "", "erm", "erm", (*small, *flags)))
        assert done[1] == ""
    assert len(read) == 2  # of a and b once; what may be other data is read again
    splits = [np.load(tmp_path / name / "split.npz") for name in "ab"]
    assert all(np.array_equal(splits[0][key], splits[1][key]) for key in splits[0])
    assert main([*small, *sets["a"], f"--run_dir={tmp_path / 'alone'}"]) == 0
    metrics = [(tmp_path / name / "erm" / "metrics.csv").read_text() for name in ("b", "alone")]
    assert metrics[0] == metrics[1]
