"""Files of others: not replaced, not removed, not run."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_mwnet
from pipelines import run as running
from pipelines.store import Store
from tf_mwnet import data, files
from tf_mwnet.audit import cleaned, outputs
from tf_mwnet.audit.examine import examine
from tf_mwnet.cli import flagfiles
from tf_mwnet.cli.flags import parse
from tf_mwnet.config import Experiment
from tf_mwnet.data import equal, records
from tf_mwnet.data.images import LazyImages, Reading
from tf_mwnet.errors import UserError
from tf_mwnet.experiment import resolve
from tf_mwnet.networks import WeightFunction
from tf_mwnet.reports import __main__ as reports
from tf_mwnet.reports import compare

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """A finished run on arrays in memory, two epochs."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (rng.random((90, 4)) + y[:, None]).astype(np.float32)
    source = data.from_arrays(x[:60], y[:60], x[60:], y[60:], name="flowers", class_names="abc")
    folder = tmp_path_factory.mktemp("foreign") / "run"
    config = Experiment(
        epochs=2, batch_size=30, meta_size=0, network="linear", method="gce", run_dir=folder
    )
    tf_mwnet.run(config, source)
    return folder


# -------------------------------------------------------------------- what commands write


@pytest.mark.parametrize("flag", ["csv", "png"])
def test_files_of_others_are_not_replaced(finished, flag, tmp_path, capsys):
    path = tmp_path / "notes"
    line = [f"--runs={finished}", f"--{flag}={path}", "--x=seed"]
    path.write_text("mine, and long\n1,2\n")
    assert compare.main(line) == 2
    assert f"{flag} is '{path}', which this command has not written" in capsys.readouterr().err
    assert path.read_text() == "mine, and long\n1,2\n"
    assert compare.main([*line, "--overwrite"]) == 0
    first = path.read_bytes()
    assert compare.main(line) == 0  # its own file
    assert path.read_bytes() == first
    assert compare.main([f"--runs={finished}", f"--{flag}={tmp_path}"]) == 2
    assert compare.main([f"--runs={finished}", f"--{flag}={path}/x"]) == 2


def test_a_report_does_not_replace_a_page_of_others(finished, tmp_path, capsys):
    (tmp_path / "index.html").write_text("<p>my home page</p>")
    assert reports.main([f"--runs={finished}", f"--out={tmp_path}", "--noaudit"]) == 2
    assert "holds files that are no report" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "<p>my home page</p>"


def test_runs_have_names_wherever_they_are_named_from(finished, tmp_path, monkeypatch):
    out = tmp_path / "page"
    monkeypatch.chdir(finished)
    before = sorted(p for p in finished.rglob("*") if p.is_file())
    for number, name in enumerate((".", "gce/..", str(finished))):
        assert reports.main([f"--runs={name}", f"--out={out}{number}", "--noaudit"]) == 0
        assert sorted(p.name for p in pathlib.Path(f"{out}{number}").iterdir()) == ["index.html", "run"]
    assert sorted(p for p in finished.rglob("*") if p.is_file()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page0", "page1", "page2"]


def test_audit_of_a_folder_that_is_read_only(finished, tmp_path, monkeypatch, capsys):
    from tf_mwnet.audit import __main__ as audit

    def refuse(*_, **__):
        raise PermissionError("read-only")

    assert audit.main([f"--run_dir={finished}", f"--out={tmp_path / 'a'}"]) == 0
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"label_issues.csv", "audit.json"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("x")
    assert audit.main([f"--run_dir={finished}", f"--out={tmp_path / 'b'}"]) == 2
    assert "holds files that are no audit" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # root can write everywhere
        patch.setattr(outputs, "write_frame", refuse)
        assert audit.main([f"--run_dir={finished}"]) == 2
    assert "read-only; allowed: --out=<a folder that can be written>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+a", "'+a"), ("-cmd", "'-cmd"), ("\tx", "'\tx"),
     ("'=x", "''=x"), ("-1.5", "-1.5"), ("+3", "+3"), ("-", "-"), ("cat", "cat"), ("'cat'", "'cat'")],
)  # fmt: skip
def test_cells_that_a_spreadsheet_would_run(text, cell, tmp_path):
    assert files.cell_text(text) == cell
    assert files.as_written(cell) == text
    files.write_csv(tmp_path / "t.csv", [{"a": text}], ["a"])
    assert cell in (tmp_path / "t.csv").read_text()


def test_ids_like_formulas_come_back(tmp_path, finished):
    audit = examine(finished)
    table = audit.table.assign(id=[f"=cmd{i}" for i in range(len(audit.table))])
    outputs.write(dataclasses.replace(audit, table=table), 4, tmp_path)
    assert "\n'=cmd0," in (tmp_path / "label_issues.csv").read_text()
    assert outputs.read_label_issues(tmp_path).id[0] == "=cmd0"


# -------------------------------------------------------------------- the pipeline's home


def test_a_home_keeps_what_is_not_its_own(tmp_path):
    home = tmp_path / "home"
    foreign = home / "artifacts" / "mine" / "photos" / "cat.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("meow")
    store = Store(home)
    made = home / "artifacts" / "run-1" / "trainer" / "model"
    made.mkdir(parents=True)
    (made / "weights").write_text("1,2")
    store.finish(store.begin("trainer", {}, {}, {}), {"model": "artifacts/run-1/trainer/model"}, {})
    half = home / "artifacts" / "run-2" / "trainer" / "model"
    half.mkdir(parents=True)
    (half / "weights").write_text("1")
    store.begin("trainer", {}, {}, {}, ["artifacts/run-2/trainer/model"])
    running._tidy(store, home)
    assert foreign.read_text() == "meow"
    assert (made / "weights").is_file()
    assert not half.exists()
    (made / "weights").write_text("1,")
    (made / "my notes").write_text("kept")
    running._tidy(store, home)
    assert not made.exists()
    assert (made.with_name("model.kept-1") / "my notes").read_text() == "kept"


def test_a_home_that_was_moved_knows_its_artifacts(tmp_path):
    store = Store(tmp_path / "home")
    made = tmp_path / "home" / "artifacts" / "model"
    made.mkdir(parents=True)
    (made / "weights").write_text("1,2")
    store.finish(store.begin("trainer", {}, {}, {}), {"model": "artifacts/model"}, {})
    (tmp_path / "home").rename(tmp_path / "house")
    store = Store(tmp_path / "house")
    assert store.place("artifacts/model") == tmp_path / "house" / "artifacts" / "model"
    assert store.damaged(tmp_path / "house" / "artifacts") == []
    running._tidy(store, tmp_path / "house")
    assert (tmp_path / "house" / "artifacts" / "model" / "weights").read_text() == "1,2"


# -------------------------------------------------------------------- programs of others


class Reads(tf.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "loss")])
    def weigh(self, loss):
        with tf.control_dependencies([self.operation()]):
            return {"weight": tf.identity(loss)}


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("ReadFile", lambda: tf.io.read_file("/etc/hostname")),
        ("WriteFile", lambda: tf.io.write_file("/tmp/never", "x")),
        ("MatchingFiles", lambda: tf.io.matching_files("/etc/*")),
        ("EagerPyFunc", lambda: tf.py_function(lambda: tf.constant(1.0), [], tf.float32)),
        ("PrintV2", lambda: tf.print("hello", output_stream="file:///tmp/never")),
        ("SaveV2", lambda: tf.raw_ops.SaveV2(
            prefix="/tmp/never", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones(1)])),
    ],
)  # fmt: skip
def test_weight_nets_that_do_more_than_arithmetic(name, operation, tmp_path):
    module = Reads(operation)
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.weigh)
    with pytest.raises(UserError, match=f"has the operation .*{name}.*; allowed: arithmetic"):
        WeightFunction(tmp_path / "net")


def test_weight_nets_of_others_that_are_arithmetic(tmp_path):
    module = Reads(lambda: tf.no_op())
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.weigh)
    assert WeightFunction(tmp_path / "net")(tf.constant([2.0])).numpy() == [2.0]
    for name in ("1_old", "10", "9"):
        target = tmp_path / "versions" / name
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", tmp_path / "net", target], check=True)
    assert WeightFunction(tmp_path / "versions").path.name == "10"


# -------------------------------------------------------------------- what comes with the project


def test_flagfiles_and_weight_nets_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10_flip", "sweeps/digits_all_methods"):
        path = ROOT / "configs" / f"{name}.cfg"
        assert flagfiles.expand([f"--flagfile=@{name}"]) == flagfiles.expand([f"--flagfile={path}"])
    assert WeightFunction("@mnist_uniform").path == ROOT / "saved_models" / "mnist_uniform" / "1"
    with pytest.raises(
        UserError, match=r"no flagfile '@cifar10_flap' .*\(did you mean '@cifar10_flip', "
    ):
        flagfiles.expand(["--flagfile=@cifar10_flap"])
    with pytest.raises(
        UserError, match=r"no weight net '@mnist' .*\(did you mean .*\?\); allowed: those"
    ):
        WeightFunction("@mnist")
    assert {p.name for p in (ROOT / "saved_models").glob("*/1")} == {"1"}
    assert files.shipped_path(files.WEIGHT_NETS, "digits_flip2").is_dir()


def test_flagfiles_too_deep(tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.cfg").write_text(f"--flagfile={i + 1}.cfg\n")
    with pytest.raises(UserError, match=r"flagfile '\d+.cfg' is 51 files deep; allowed: 50"):
        flagfiles.expand([f"--flagfile={tmp_path / '0.cfg'}"])


@pytest.mark.slow
def test_a_wheel_has_flagfiles_and_weight_nets(tmp_path):
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT]
    subprocess.run(wheel, check=True)
    (built,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", built, target], check=True)
    foreign = tmp_path / "cwd" / "pipelines"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise SystemExit('the wrong pipelines')")
    line = [sys.executable, "-P", "-m", "tf_mwnet", "train", "--flagfile=@cifar10_flip", "--epochs=0"]
    where = {"cwd": tmp_path / "cwd", "env": {"PYTHONPATH": str(target), "PATH": ""}}
    done = subprocess.run(line, capture_output=True, text=True, **where)
    assert "epochs is 0; allowed: at least 1" in done.stderr
    line = [sys.executable, "-m", "tf_mwnet", "pipeline", "--margin=2"]
    done = subprocess.run(line, capture_output=True, text=True, **where)
    assert "margin is 2; allowed: 0 to 1" in done.stderr


# -------------------------------------------------------------------- data


def test_a_run_on_arrays_says_so(finished):
    config = Experiment(**{"dataset": "memory:flowers", "epochs": 1})
    with pytest.raises(UserError, match="dataset 'memory:flowers' was in memory; allowed: the same"):
        tf_mwnet.run(config)
    assert '"dataset": "memory:flowers"' in (finished / "config.json").read_text()
    audit = examine(finished)
    assert audit.source is None
    assert len(audit.table) == 60
    row = compare.read_run(finished)[0]
    assert row["dataset"] == "memory:flowers"


def test_a_run_on_arrays_is_named_after_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).random((60, 4)), np.arange(60) % 2
    config = Experiment(epochs=1, meta_size=0, method="erm", network="linear")
    result = tf_mwnet.run(config, data.from_arrays(x, y, name="my flowers"))
    assert str(result.run_dir) == "runs/my flowers-erm-1"


def test_equal_examples():
    x = np.arange(10, dtype=np.float32)[:, None].repeat(3, axis=1)
    x[4], x[5], x[7] = x[0], x[1], x[2]
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 0, 1, 1])  # 0 and 4 differ; 1 and 5, 2 and 7 do not
    train = data.from_arrays(x, labels, class_names="ab").train
    test = data.from_arrays(x[[8, 8, 3]], [0, 1, 1], class_names="ab").train
    found = equal.in_several_sets(train, {"test": test}, labels)
    assert {k: np.flatnonzero(v).tolist() for k, v in found.items()} == {
        "test": [3, 8],
        "two labels": [0, 4],
        "again": [5, 7],
    }


@pytest.mark.parametrize("drop", [False, True])
def test_equal_examples_of_a_run(drop, caplog):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 4, 4, 1), np.uint8)
    y = np.arange(40) % 2
    x[1] = x[0]  # two labels
    test = np.concatenate([x[10:13], rng.integers(0, 256, (5, 4, 4, 1), np.uint8)])
    source = data.from_arrays(x, y, test, np.arange(8) % 2, name="twins")
    splits = data.make_splits(source, data.BiasConfig(drop_duplicates=drop))
    assert len(splits.train) == (35 if drop else 40)
    assert "twins: 3 training examples are also in the test set, as 'twins train/00010'" in caplog.text
    assert "twins: 2 training examples are there again with another label" in caplog.text
    assert ("they are left out" if drop else "--drop_duplicates leaves them out") in caplog.text
    if drop:
        assert not {f"twins train/{i:05d}" for i in (0, 1, 10, 11, 12)} & set(splits.train.ids)


@pytest.mark.parametrize("target", ["clean", "clean.npz"])
def test_a_cleaned_copy_has_the_classes_that_were_kept(tmp_path, target):
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for name in ("cat", "cow", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 64, (8, 8), np.uint8) + 190 * (name == "cat")
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    fields = {"dataset": "folder", "data_dir": str(tmp_path / "photos"), "classes": ("dog", "cat")}
    config = Experiment(
        **fields, epochs=5, batch_size=20, method="gce", network="linear", run_dir=tmp_path / "run"
    )
    audit = examine(tf_mwnet.run(config))
    assert audit.table.is_label_issue.sum() < 20
    cleaned.write(audit, tmp_path / target)
    loaded = data.load("npz" if target.endswith("npz") else "folder", str(tmp_path / target))
    assert set(loaded.class_names) == {"cat", "dog"}
    assert sorted(np.unique(loaded.test.y)) == [0, 1]


@pytest.mark.parametrize("mode", cleaned.MODES)
def test_a_cleaned_copy_never_loses_a_class(finished, tmp_path, mode, caplog):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (rng.random((90, 4)) + y[:, None]).astype(np.float32)
    source = data.from_arrays(x[:60], y[:60], x[60:], y[60:], name="flowers", class_names="abc")
    audit = examine(finished, source=source)
    wrong = (audit.table.given_label == "b") | (audit.table.index < 4)
    table = audit.table.assign(is_label_issue=wrong, predicted_label="c")
    size = cleaned.write(dataclasses.replace(audit, table=table), tmp_path / "clean.npz", mode)
    count = int((audit.table.given_label == "b").sum())
    assert f"all {count} labels of class b look wrong; they are kept" in caplog.text
    made = data.load(str(tmp_path / "clean.npz"))
    assert (made.train.y == 1).sum() == count
    assert len(made.train) == size
    others = audit.table[(audit.table.given_label != "b") & (audit.table.index < 4)]
    assert size == len(audit.table) - (len(others) if mode == "drop" else 0)


def test_special_files_are_no_images(tmp_path, caplog):
    import os

    folder = tmp_path
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
            image.save(folder / "train" / name / f"{i}.png")
    os.mkfifo(folder / "train" / "cat" / "pipe.png")
    assert len(data.load("folder", str(folder)).train) == 8
    assert "1 files are left out, which are no images" in caplog.text


def test_limits_before_anything_is_allocated(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="label 4294967295 is out of range; allowed: 0 to 9999"):
        data.from_arrays(np.random.default_rng(0).random((6, 2)), [0, 1, 0, 1, 0, 2**32 - 1])
    with pytest.raises(UserError, match="resize is 1000000; allowed: 0 to 16384"):
        Experiment(resize=1_000_000)
    Image.new("L", (200, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.raises(UserError, match=r"large.png' \(20,000 pixels, allowed are 15,000\)"):
        Reading()(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)  # Pillow itself refuses twice its limit
    with pytest.raises(UserError, match=r"large.png' \(Image size \(20000 pixels\) exceeds limit"):
        Reading()(tmp_path / "large.png")


def test_a_cache_is_renewed_within_a_second(tmp_path):
    import os

    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    images = LazyImages(np.array([str(path)]), Reading(), (4, 4, 1))
    before = images.fingerprint()
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    assert images.fingerprint() != before


@pytest.mark.parametrize(
    "cluster", ['{"worker": ["host"]}', '{"worker": ["host:x"]}', '{"worker": [3]}']
)
def test_addresses_without_ports(cluster, monkeypatch):
    from tf_mwnet import strategies

    text = f'{{"cluster": {cluster}, "task": {{"type": "worker", "index": 0}}}}'
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG is .*; allowed with strategy multiworker"):
        strategies.make("multiworker", 0)


# -------------------------------------------------------------------- streams of the process


@pytest.mark.parametrize("command", ["train", "audit", "features", "sweep", "tflite"])
def test_a_refusal_is_the_only_line(command, monkeypatch):
    """No notes of TensorFlow, which writes them when it is imported."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    module = {"train": "tf_mwnet.main", "tflite": "tf_mwnet.export.tflite"}.get(command)
    line = [sys.executable, "-m", module or f"tf_mwnet.{command}", "--no_such_flag=1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("tf_mwnet: ")


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("{command} published --list | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}", 141),
        ("{command} --help | :; exit ${{PIPESTATUS[0]}}", 141),
        ("{command} compare --runs=nowhere 2>&-", 2),
        ("{command} published --list --source=gdw >&-", 0),
        ("{command} published --list --source=gdw 2>&- >&-", 0),
    ],
)
def test_streams_that_are_closed(shell, code):
    line = shell.format(command=f"{sys.executable} -m tf_mwnet")
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr


def test_own_data_called_digits_stays_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y)
    for row, label in enumerate(y):
        path = tmp_path / "digits" / "train" / f"class_{label}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[row]).save(path)
    records.write(data.load(str(tmp_path / "digits.npz")), tmp_path / "own")
    records.write(data.load("digits"), tmp_path / "built_in")
    lines = [
        [f"--dataset={tmp_path / 'digits.npz'}"],
        ["--dataset=folder", f"--data_dir={tmp_path / 'digits'}"],
        ["--dataset=records", f"--data_dir={tmp_path / 'own'}"],
    ]
    for line in lines:
        config, source = resolve.find(parse(line))
        assert source.name == "digits"
        assert (config.noise, config.method) == ("none", "elr")
    for line in ([], ["--dataset=records", f"--data_dir={tmp_path / 'built_in'}"]):
        assert resolve.find(parse(line))[0].noise == "flip2"
