"""Bad flags, folders and files: one line, exit code 2, nothing written."""

import os

import numpy as np
import pytest
from runs import ROOT, SHORT, command, final_variables

from tf_mwnet import Experiment, UserError
from tf_mwnet.audit import __main__ as audit
from tf_mwnet.main import main
from tf_mwnet.methods import METHODS
from tf_mwnet.reports import __main__ as reports
from tf_mwnet.runs import run_folder
from tf_mwnet.serve import __main__ as serve
from tf_mwnet.sweep import __main__ as sweep


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=nothing"], "unknown data set 'nothing'"),
        (["--method=magic"], f"unknown method 'magic'; allowed: {', '.join(METHODS)}, auto"),
        (
            ["--meta_loss=mse"],
            "allowed: auto, cross_entropy, mae, gce, scaled_gce, sce, nce",
        ),
        (["--compare=mwnet"], "compare is 'mwnet'"),
        (["--network=resnet-32"], "did you mean 'resnet32'"),
        (["--noise_rate=1.5"], "noise_rate is 1.5; allowed: 0 to 1"),
        (["--noise_rate=nan"], "noise_rate is nan"),
        (["--imbalance_factor=0.5"], "imbalance_factor is 0.5; allowed: at least 1"),
        (["--meta_size=5000"], "allowed: at most 1300"),
        (["--meta_size=0"], "method 'mwnet' needs a meta set and meta_size is 0"),
        (["--epochs=0"], "epochs is 0; allowed: at least 1"),
        (["--epochs=many"], "epochs is 'many'; allowed: an integer"),
        (["--lr=a: b"], "lr is 'a: b'; allowed: a number"),
        (["--overwrite=maybe"], "overwrite is 'maybe'; allowed: true or false"),
        (["--lr=0"], "lr is 0; allowed: above 0"),
        (["--lr_drops=a,b"], "lr_drops is 'a,b'; allowed: integers"),
        (["--schedule=linear"], "unknown schedule 'linear'; allowed: step, cosine"),
        (["--unknown=1"], "unknown flag '--unknown'; allowed: those that --help lists"),
        (
            ["--method=elr", "--beta=0.9"],
            "unknown flag '--beta' (of method elr it is an option: --method='elr --beta=...')",
        ),
        (["--mixup=1e38"], "mixup is 1e+38; allowed: 0 to 1000"),
        (["--post_hoc_logit_adjustment=1e39"], "is 1e+39; allowed: 0 to 100"),
        (["--epoch=1"], "unknown flag '--epoch' (did you mean '--epochs'?); allowed: those"),
        (["--weight_net=/tmp"], "weight net '/tmp' holds no SavedModel; allowed: a SavedModel folder"),
        (["--dataset=folder", "--data_dir=none", "--network=none"], "unknown network 'none'"),
        (["--dataset=folder", "--data_dir=none", "--noise=loud"], "unknown noise 'loud'"),
        (["--dataset=folder", "--data_dir=none", "--weight_net=a"], "weight net 'a' is not there"),
        (
            ["--method=erm", "--run_dir=/proc/a"],
            "'/proc/a': no such file or directory; allowed: a place",
        ),
        (
            ["--method=rmnw", "--noise=none", "--imbalance_factor=60"],
            "which has 2 examples; allowed: at most 10, or --meta_balance=none",
        ),
        (["stray"], "'stray'"),
        (["--flagfile=none.cfg"], "flagfile 'none.cfg' is not there"),
        (["--weight_net=none"], "weight net 'none' is not there"),
        (["--resume"], "resume is set without run_dir"),
        (["--resume", "--run_dir=nowhere"], "holds no run to resume"),
        (["--resume", "--overwrite", "--run_dir=x"], "one of them"),
        (["--noise=hierarchical"], "needs coarse classes"),
        (["--noise=background", "--background_class=10"], "unknown background_class '10'"),
        (["--background_class=1"], "background_class is set with noise 'flip2'"),
        (["--meta_balance=balanced"], "unknown meta_balance 'balanced'; allowed: given, true, none"),
        (["--train_size=5000"], "train_size is 5000; allowed: at most"),
        (["--scaling=raw"], "unknown scaling 'raw'; allowed: standardised, unit, signed"),
        (["--resize_sides=both"], "resize_sides is both without resize"),
        (["--noise=none.csv"], "'none.csv' is not there"),
        (["--dataset=folder", "--data_dir=none"], "folder 'none/train' is not there"),
        (["--network=resnet50"], "resnet50 got images"),
        (["--hidden=0"], "hidden sizes"),
        (
            ["--method=cmwnet", "--noise=none", f"--class_counts={','.join(['50'] * 10)}"],
            "groups is 3, but the 10 classes have 1 distinct size; allowed: 1 to 1",
        ),
        (["--method=cmwnet --groups=0"], "groups is 0; allowed: at least 1"),
        (["--method=gdw --eta=0"], "eta is 0; allowed: above 0"),
        (["--method=gdw --eta=nan"], "eta is nan; allowed: above 0"),
        (["--method=gdw --eta=much"], "eta is 'much'; allowed: a number"),
        (["--method=gdw --lr=1"], "method gdw has no option 'lr'; allowed: --eta"),
        (["--method=gdw --eta=1 more"], "method is 'gdw --eta=1 more'; allowed: gdw, and its options"),
        (["--method=gdw --eta='1"], "method is 'gdw --eta='1'; allowed: a name, and its options"),
        (["--method="], "unknown method ''; allowed: mwnet"),
        (["--method=erm --eta=1"], "allowed: none, it has no options"),
        (["--compare=mentornet --dropout=0.5"], "dropout is (0.5,); allowed: 3 numbers"),
        (["--method=insw", "--meta_size=0"], "'insw' needs a meta set and meta_size is 0"),
        (["--network=lenet_sigmoid"], "lenet_sigmoid got 10 classes; allowed: 2"),
        (["--method=weighted_oracle", "--noise=none"], "the true labels are not known, and"),
        (
            ["--method=l2rw", f"--weight_net={ROOT / 'saved_models' / 'cifar10_flip2'}"],
            "weight_net is set, for which there is no meta set, with method 'l2rw'",
        ),
        (["--early_stopping=5000"], "early_stopping is 5000; allowed: below 1252"),
        (
            ["--method=erm", "--then_fine_tune=9", "--meta_size=0"],
            "then_fine_tune is 9 without a meta set",
        ),
        (["--strategy=all"], "unknown strategy 'all'; allowed: none, mirrored, multiworker"),
        (["--strategy=multiworker"], "strategy is multiworker without run_dir"),
        (["--strategy=multiworker", "--run_dir=r"], "TF_CONFIG is ''; allowed with strategy multiwor"),
        (["--replicas=2"], "replicas is 2 with strategy 'none'; allowed: with mirrored"),
        (["--strategy=mirrored", "--replicas=5"], "replicas is 5, and TensorFlow has been started"),
        (["--auto_resume"], "auto_resume is set; allowed: with run_dir, and without overwrite"),
        (["--cache=ram"], "unknown cache 'ram'; allowed: auto, memory, disk, none"),
        (["--cache=disk"], "cache is disk with dataset 'digits'; allowed: auto, memory"),
        (["--fine_tune_unit=hours"], "unknown fine_tune_unit 'hours'; allowed: steps, epochs"),
        (
            ["--method=s_model --s_model_init=zeros"],
            "unknown s_model_init 'zeros'; allowed: identity, confusion",
        ),
        (["--method=co_teaching --forget_rate=1"], "forget_rate is 1; allowed: 0 to below 1"),
        (["--resize=20"], "resize is 20 with dataset 'digits'; allowed: with dataset 'folder'"),
        (["--center_crop=-1"], "center_crop is -1; allowed: at least 0"),
    ],
)
def test_bad_flags(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    (line,) = [text for text in err.splitlines() if not text.startswith("tf_mwnet: digits")]
    assert message in line
    assert out == ""
    assert not list(tmp_path.iterdir())  # nothing was written


def test_run_folders_are_safe(finished, tmp_path, capfd):
    before = snapshot(finished)
    assert main([*SHORT, "--compare=erm", f"--run_dir={finished}"]) == 2
    assert "holds a finished run; allowed: a new folder, or --overwrite" in capfd.readouterr().err
    assert main([*SHORT, "--compare=erm", f"--run_dir={finished}", "--resume", "--seed=5"]) == 2
    assert "seed: 0 -> 5" in capfd.readouterr().err
    assert main([f"--run_dir={finished}", "--overwrite", "--meta_size=5000"]) == 2
    assert main([f"--run_dir={finished}", "--overwrite", "--network=lenet"]) == 2
    capfd.readouterr()
    assert snapshot(finished) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*SHORT, f"--run_dir={tmp_path}", "--overwrite"]) == 2
    assert "holds files that are no run" in capfd.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert main([*SHORT, f"--run_dir={tmp_path / 'notes.txt'}"]) == 2
    assert "is a file" in capfd.readouterr().err
    assert main([*SHORT, f"--run_dir={tmp_path / 'notes.txt' / 'x'}"]) == 2
    assert f"is below '{tmp_path / 'notes.txt'}', a file; allowed: a new" in capfd.readouterr().err


@pytest.mark.parametrize("command", [reports.main, sweep.main, audit.main])
def test_folders_that_are_files(command, finished, tmp_path, capfd):
    file = tmp_path / "file"
    file.write_text("mine")
    line = {
        reports.main: [f"--runs={finished}"],
        sweep.main: ["--methods=erm", *SHORT],
        audit.main: [f"--run_dir={finished}"],
    }[command]
    assert command([*line, f"--out={file}"]) == 2
    assert capfd.readouterr().err == f"tf_mwnet: out '{file}' is a file; allowed: a new folder\n"
    assert file.read_text() == "mine"


def test_models_that_are_not_there_before_what_is_not_installed(tmp_path, capfd):
    assert serve.main([f"--models={tmp_path / 'none'}"]) == 2
    assert f"models is '{tmp_path / 'none'}'; allowed: a folder of" in capfd.readouterr().err


def test_a_bad_flag_in_a_flagfile(tmp_path, capfd):
    path = tmp_path / "a.cfg"
    path.write_text("--epochs=3\n--foo=1\n")
    assert main([f"--flagfile={path}"]) == 2
    expected = f"unknown flag '--foo' in flagfile '{path}'; allowed: those that --help lists\n"
    assert capfd.readouterr().err == f"tf_mwnet: {expected}"
    path.write_text("--epochs=3.5\n")
    assert main([f"--flagfile={path}"]) == 2
    assert (
        capfd.readouterr().err
        == f"tf_mwnet: epochs is '3.5' in flagfile '{path}'; allowed: an integer\n"
    )
    assert sweep.main(["--methods=erm", "--set=foo=1", f"--out={tmp_path / 'out'}"]) == 2
    assert "unknown flag '--foo'; allowed: those that --help lists" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "refused"), [
    (".config.json.ab1_xyz9", False), (".lock", False), (".config.json", True),
    (".notes.ab1_xyz9", True), (".config.json.ab1_xyz9.txt", True),
])  # fmt: skip
def test_a_run_killed_at_its_first_write_can_start_again(name, refused, tmp_path):
    (tmp_path / name).write_text("{")
    experiment = Experiment(run_dir=str(tmp_path))
    if refused:
        with pytest.raises(UserError, match="holds files that are no run"):
            run_folder.check(experiment)
    else:
        assert run_folder.check(experiment) == tmp_path


@pytest.mark.slow
def test_overwrite_replaces_a_run(tmp_path):
    folder = tmp_path / "run"
    assert main([*SHORT, "--method=erm", f"--run_dir={folder}"]) == 0
    assert main([*SHORT, f"--run_dir={folder}", "--overwrite"]) == 0
    assert not (folder / "erm").exists()


def test_damaged_configuration(tmp_path, capfd):
    (tmp_path / "config.json").write_text("{")
    assert main([*SHORT, f"--run_dir={tmp_path}", "--overwrite"]) == 2
    assert "holds a damaged config.json; allowed: a new folder" in capfd.readouterr().err
    assert main([*SHORT, f"--run_dir={tmp_path}", "--resume"]) == 2
    assert "cannot be read" in capfd.readouterr().err


def test_nan_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, capfd):
    folder = tmp_path / "run"
    arguments = ["--epochs=5", "--lr=1e18", "--network=mlp", "--steps_per_epoch=1", "--method=erm"]
    assert main([*arguments, f"--run_dir={folder}"]) == 2
    err = capfd.readouterr().err.splitlines()[-1]
    step = int(err.split("at step ")[1].split()[0])
    assert 2 <= step <= 5
    kept = final_variables(folder, "erm")
    epoch = int(next(v for n, v in kept.items() if n.startswith("epoch")))
    assert epoch == step - 1
    assert not (folder / "result.json").exists()


def test_nan_in_the_first_epoch(tmp_path, capfd):
    line = ["--epochs=2", "--lr=1e18", "--network=mlp", "--steps_per_epoch=9", "--method=erm"]
    assert main([*line, f"--run_dir={tmp_path / 'run'}", "--meta_size=1300"]) == 2
    err = capfd.readouterr().err.splitlines()
    assert err[-1].endswith("try a lower --lr; no epoch was finished")
    assert "tf_mwnet: no drop of lr after epoch 40, 50: there are 2 epochs" in err
    assert "tf_mwnet: the meta set has 1300 examples, more than the 52 to train on" in err


def test_unusable_labels_and_images_from_files(tmp_path, capfd):
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 6, 6, 1)), np.arange(60) % 3
    bad = {
        "float labels": ((x, y + 0.5), "no integer"),
        "negative": ((x, y - 1), "out of range"),
        "nan": ((np.where(np.arange(60)[:, None, None, None] == 3, np.nan, x), y), "image 3 has NaN"),
        "constant": ((x * 0, y), "all pixels are 0"),
        "nan in a table": (
            (np.where(np.arange(60)[:, None] == 3, np.nan, x[:, 0, :, 0]), y),
            "row 3 has",
        ),
        "constant table": ((x[:, 0, :, 0] * 0, y), "all values are 0.0; allowed: rows that differ"),
        "empty class": ((x, y * 2), "no example of class 1"),
    }
    for name, ((images, labels), message) in bad.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=images, y_train=labels)
        assert main([f"--dataset={path}", f"--run_dir={tmp_path / 'run'}"]) == 2
        err = capfd.readouterr().err
        assert message in err
        assert f"data file '{path}', {name} train: " in err
        assert not (tmp_path / "run").exists()


def test_the_command_prints_one_line_for_bad_input():
    process = command("--method=magic", env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    ours = [line for line in err.splitlines() if "tf_mwnet" in line]
    assert ours == [f"tf_mwnet: unknown method 'magic'; allowed: {', '.join(METHODS)}, auto"]
    assert "Traceback" not in err


def test_help_names_every_flag(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    names = """dataset data_dir label_key clean_label_key classes noise noise_rate imbalance_factor
        meta_size meta_labels network method compare epochs steps_per_epoch batch_size meta_batch_size
        lr lr_drops data_seed seed run_dir overwrite resume weight_net"""
    for name in names.split():
        assert f"  --{name}=" in out
    assert str(ROOT) not in out


def test_bad_experiments_in_python():
    with pytest.raises(UserError, match="batch_size is 0"):
        Experiment(batch_size=0)
    with pytest.raises(ValueError, match="precision"):
        Experiment(precision="float8")
