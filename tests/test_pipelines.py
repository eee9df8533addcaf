"""The pipeline's parts in this process: data, statistics, anomalies, judgement, pushing, lineage."""

import concurrent.futures
import dataclasses
import inspect
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from kfp import dsl
from runs import SHORT

import tf_mwnet
from pipelines import beam_jobs, lineage, outcome, settings, work
from pipelines import benchmark as scale
from pipelines import compile as compiling
from pipelines import run as running
from pipelines.store import Store
from pipelines.work import evaluation, statistics, tuning, validation
from tf_mwnet import UserError, data
from tf_mwnet.cli.flags import parse
from tf_mwnet.data import records
from tf_mwnet.experiment import resolve
from tf_mwnet.export import serving

FLAGS = [*SHORT, "--noise=flip2", "--meta_size=50"]


OPTIONAL = {"trainer": ("best", "weight_net")}  # given by name


class Line:
    """Runs components one by one, each output in a folder of its own."""

    def __init__(self, home):
        self.home, self.made = home, {}

    def __call__(self, component, /, **parameters):
        kinds = {"model": dsl.Model, "metrics": dsl.Metrics}
        for output in work.OUTPUTS[component]:
            uri = str(self.home / component / output)
            self.made[output] = kinds.get(output, dsl.Artifact)(name=output, uri=uri)
            pathlib.Path(uri).parent.mkdir(parents=True, exist_ok=True)
        takes = inspect.signature(work.WORK[component]).parameters
        given = {
            k: v for k, v in self.made.items() if k in takes and k not in OPTIONAL.get(component, ())
        }
        more = {"home": str(self.home), "code": "", "runner": "DirectRunner", "beam_options": []}
        return work.WORK[component](
            **given, **{k: v for k, v in more.items() if k in takes}, **parameters
        )

    def path(self, name):
        return pathlib.Path(self.made[name].path)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """The digits, up to biased examples."""
    config = parse(FLAGS)
    found = Line(tmp_path_factory.mktemp("line"))
    found("example_gen", flags=settings.flags_of(config, "example_gen"))
    found("statistics_gen")
    found("schema_gen")
    found("example_validator", max_duplicates=0.01)
    found("bias_gen", flags=settings.flags_of(config, "bias_gen"))
    return found


def test_examples_are_those_of_the_command(line):
    config, _, splits = resolve.load(parse(FLAGS))
    assert config.noise == "flip2"
    made = data.load("records", str(line.path("biased")))
    for part in ("train", "meta", "test"):
        for field in ("x", "y", "true_y", "ids"):
            expected = getattr(getattr(splits, part), field)
            np.testing.assert_array_equal(getattr(getattr(made, part), field), expected)
    before = data.load("records", str(line.path("examples")))
    assert before.bias is None
    np.testing.assert_array_equal(before.train.y, before.train.true_y)
    realised = np.loadtxt(line.path("matrices") / "realised_matrix.csv", delimiter=",")
    expected = data.realised_matrix(splits.train.true_y, splits.train.y, 10)
    np.testing.assert_allclose(realised, expected, atol=1e-6)


def test_bias_is_that_of_the_command(tmp_path):
    """Two components do in turn what a run does at once: the second one leaves out and flips labels."""
    flags = [*FLAGS, "--noise=background", "--background_class=3", "--train_size=300",
             "--meta_labels=noisy", "--meta_balance=true"]  # fmt: skip
    config, _, splits = resolve.load(parse(flags))
    found = Line(tmp_path)
    found("example_gen", flags=settings.flags_of(config, "example_gen"))
    found("bias_gen", flags=settings.flags_of(config, "bias_gen"))
    made = data.load("records", str(found.path("biased")))
    assert (len(made.train) + len(made.meta), made.bias["background_class"]) == (300, "3")
    for part in ("train", "meta", "test"):
        for field in ("y", "true_y", "ids"):
            expected = getattr(getattr(splits, part), field)
            np.testing.assert_array_equal(getattr(getattr(made, part), field), expected)


def test_statistics_are_those_of_the_arrays(line):
    numbers, groups = statistics.read(line.path("statistics"))
    made = data.load("records", str(line.path("examples")))
    assert sorted(d.name for d in numbers.datasets) == ["meta", "test", "train"]
    for split in numbers.datasets:
        part = getattr(made, split.name)
        assert split.num_examples == len(part)
        label, pixels = split.features
        counts = [b.sample_count for b in label.string_stats.rank_histogram.buckets]
        np.testing.assert_array_equal(counts, np.bincount(part.y, minlength=10))
        np.testing.assert_allclose(pixels.num_stats.mean, part.x.mean(), rtol=1e-9)
        np.testing.assert_allclose(pixels.num_stats.std_dev, part.x.std(), rtol=1e-6)
        assert (pixels.num_stats.min, pixels.num_stats.max) == (part.x.min(), part.x.max())
    assert groups == []
    page = (line.path("statistics").parent / "page").read_text()
    assert "Classes of each split" in page
    assert 'src="data:image/svg+xml,' in page


def written(tmp_path, change):
    """Statistics of a small data set after ``change(x, y)``."""
    rng = np.random.default_rng(0)
    x = {"train": rng.integers(0, 255, (60, 4, 4, 1)), "test": rng.integers(0, 255, (30, 4, 4, 1))}
    y = {"train": np.arange(60) % 3, "test": np.arange(30) % 3}
    change(x, y)
    sets = [a[k] for k in ("train", "test") for a in (x, y)]
    source = data.from_arrays(*(s.astype(np.uint8 if s.ndim > 1 else int) for s in sets), name="small")
    records.write(source, tmp_path / "records", shard=16)
    facts = records.read_facts(tmp_path / "records")
    (tmp_path / "sums").mkdir()
    settings = beam_jobs.options("DirectRunner", ())
    parts, groups = beam_jobs.look(tmp_path / "records", settings, tmp_path / "sums")
    numbers = statistics.to_proto(facts, parts)
    return validation.anomalies(validation.schema_of(facts, numbers), numbers, groups)


def test_sound_data_has_no_anomaly(tmp_path):
    assert not written(tmp_path, lambda x, y: None).anomaly_info


def test_duplicates_block_when_they_are_many(tmp_path):
    def many(x, y):
        x["test"][:3] = x["train"][:3]

    found = written(tmp_path, many)
    assert "3 of 30 inputs of test are in train too" in validation.blocking(found)[0]
    assert validation.blocking(found)[0].endswith("at most 1 % are allowed")


def test_a_class_missing_from_the_test_set_blocks(tmp_path):
    def missing(x, y):
        y["test"][y["test"] == 2] = 1

    found = written(tmp_path, missing)
    assert validation.blocking(found) == ["no example of class 2 in test"]


def test_few_duplicates_are_a_warning():
    groups = [[("test", "a"), ("train", "b")], [("train", "c"), ("train", "d")]]
    assert statistics.overlap(groups, "train", "test") == ["a"]
    schema = validation.schema_pb2.Schema()
    label = schema.feature.add(name="label")
    label.int_domain.max = 2
    schema.feature.add(name="x")
    parts = {
        name: statistics.Part(
            name, np.array([70, 70, 60]), 0, 9, *(np.ones(1) * v for v in (9, 10, 0, 2)), (), 0
        )
        for name in ("train", "test")
    }
    found = statistics.to_proto({"classes": ["a", "b", "c"]}, parts)
    result = validation.anomalies(schema, found, groups)
    assert list(result.anomaly_info) == ["test/duplicates_of_train"]
    assert validation.blocking(result) == []
    worse = dataclasses.replace(parts["test"], outside=2, constant=("k",), num_constant=1)
    found = statistics.to_proto({"classes": ["a", "b", "c"]}, parts | {"test": worse})
    assert validation.blocking(validation.anomalies(schema, found, [])) == [
        "1 inputs of test hold one value only: k",
        "2 labels of test are not 0 to 2",
    ]


def test_judgement():
    labels = np.repeat(np.arange(2), 50)
    good, base = labels.copy(), labels.copy()
    good[:10] = 1  # 90 of 100, recall of class 0: 0.8
    base[:20] = 1
    found = evaluation.judge(good, base, labels, 2, margin=0.05, min_recall=0.75)
    assert found.blessed
    assert found.accuracy == 0.9
    np.testing.assert_allclose(found.interval, (0.8256, 0.9448), atol=1e-4)  # Wilson's, 90 of 100
    np.testing.assert_allclose(found.difference, 0.1)
    half = 1.959964 * np.sqrt(100 / 99 * 0.1 * 0.9 / 100)  # gain is 1 for 10 of 100, else 0
    np.testing.assert_allclose(found.difference_interval, (0.1 - half, 0.1 + half), atol=1e-6)
    np.testing.assert_array_equal(found.confusion, [[40, 10], [0, 50]])
    np.testing.assert_allclose(found.recall, [0.8, 1])
    assert not evaluation.judge(good, base, labels, 2, margin=0.1).blessed
    low = evaluation.judge(good, base, labels, 2, min_recall=0.85)
    assert low.reasons == ("recall of class 0 is 80.0 %; at least 85 % are asked for",)
    assert "the baseline's 90.0 %" in evaluation.judge(base, good, labels, 2).reasons[0]


@pytest.fixture(scope="module")
def trained(line):
    """A run, its baseline, and all that follows, on the biased digits."""
    flags = settings.flags_of(parse(FLAGS), "trainer")
    found = Line(line.home)
    found.made |= line.made
    found("trainer", flags=[*flags, "--method=erm"])
    os.rename(found.home / "trainer", found.home / "baseline")
    baseline = dsl.Artifact(name="run", uri=str(found.home / "baseline" / "run"))
    found("trainer", flags=[*flags, "--method=mwnet"])
    found.made["baseline"] = baseline
    return found


@pytest.mark.slow
def test_a_model_on_its_way_to_a_server(trained, tmp_path):
    judged = trained("evaluator", margin=0.0, min_recall=0.0, confidence=0.95)
    result = json.loads((trained.path("run") / "result.json").read_text())["methods"]["mwnet"]
    np.testing.assert_allclose(judged["accuracy"], result["last"], atol=1e-6)
    np.testing.assert_allclose(judged["noise_auc"], result["auc_weight"])
    assert (trained.path("evaluation") / "evaluation.png").stat().st_size > 5000
    assert json.loads(trained.path("metrics").read_text())["accuracy"] == judged["accuracy"]
    facts = trained("label_audit")
    assert facts["examples"] == len(
        np.loadtxt(trained.path("issues") / "label_issues.csv", str, skiprows=1)
    )
    assert not (trained.path("run") / "mwnet" / "audit").exists()  # an input stays as it is
    served = trained("infra_validator", max_latency_ms=0.0)
    assert served["blessed"], served
    assert set(served["models"]) == {"classifier", "weight_net"}
    assert served["models"]["classifier"]["shape"] == [100, 10]
    slow = serving.check(
        next((trained.path("model") / "classifier").iterdir()), np.zeros((2, 8, 8, 1)), 1e-6
    )
    assert "allowed: 1e-06" in slow["problems"][0]
    # Whatever the short run came to, a better baseline keeps it from being pushed.
    facts = json.loads((trained.path("evaluation") / "facts.json").read_text())
    for reasons, pushed in ((["worse"], None), ([], str(tmp_path / "net" / "1"))):
        (trained.path("evaluation") / "facts.json").write_text(json.dumps(facts | {"reasons": reasons}))
        found = trained("pusher", what="weight_net", name="net", push_to=str(tmp_path))
        assert found["pushed"] == pushed
        if not pushed:
            (trained.path("pushed") / "facts.json").unlink()
    loaded = tf_mwnet.WeightFunction(tmp_path / "net")
    assert loaded(np.array([0.1, 5.0], np.float32)).shape == (2,)


@pytest.mark.slow
def test_frozen_weights_on_other_data(trained, line):
    found = Line(line.home / "frozen")
    found.made |= line.made
    flags = settings.flags_of(parse(FLAGS), "trainer")
    net = next((trained.path("model") / "weight_net").iterdir())
    made = found("trainer", flags=flags, weight_net=dsl.Model(name="net", uri=str(net)))
    assert made["method"] == "mwnet"
    assert made["settings"]["weight_net"] == str(net)
    found("label_audit")
    assert (found.path("issues") / "worst.png").stat().st_size > 5000  # its data is found again
    empty = dsl.Model(name="net", uri=str(line.home / "none"))
    with pytest.raises(UserError, match="holds no weight net: none was pushed"):
        found("trainer", flags=flags, weight_net=empty)


@pytest.mark.slow
def test_tuner(line):
    found = Line(line.home / "tuner")
    found.made |= line.made
    flags = [*settings.flags_of(parse(FLAGS), "trainer"), "--epochs=2", "--lr_drops=1"]
    made = found("tuner", flags=flags, search=["lr=0.1,0.000001", "hidden=20"], trials=4)
    assert made["best"] == {"lr": 0.1, "hidden": (20,)}
    assert made["trials"] == 2
    flags = json.loads((found.path("best") / "flags.json").read_text())
    assert flags == ["--lr=0.1", "--hidden=20"]
    again = Line(line.home / "tuned")
    again.made |= line.made
    run = again("trainer", flags=[*SHORT, "--method=mwnet"], best=found.made["best"])
    assert run["settings"]["hidden"] == [20]


def test_the_judging_half_of_the_meta_set_is_not_learned_from(line):
    source = data.load("records", str(line.path("biased")))
    cut = tuning.split_meta_set(source)
    assert not set(cut.meta.ids) & set(cut.test.ids)
    assert set(cut.meta.ids) | set(cut.test.ids) == set(source.meta.ids)
    small = dataclasses.replace(source, meta=source.meta.take(np.arange(3)))
    with pytest.raises(UserError, match="allowed: at least 2 to tune by"):
        tuning.split_meta_set(small)


# -------------------------------------------------------------------- pushing


@pytest.fixture
def models(tmp_path):
    """Two small SavedModels."""

    def save(value):
        module = tf.Module()
        module.scale = tf.Variable(value)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="loss")])
        def weigh(loss):
            return {"weight": tf.sigmoid(loss) * module.scale}

        path = tmp_path / f"model_{value}"
        tf.saved_model.save(module, str(path), {"serving_default": weigh})
        return path

    return [save(0.5), save(2.0)]


def test_push(models, tmp_path):
    base = tmp_path / "saved_models" / "net"
    first = serving.push(models[0], base, {"what": "weight_net"})
    assert first == base / "1"
    assert serving.push(models[0], base, {}) == first  # cut off before it was noted: not pushed twice
    (base / "7").mkdir()
    (base / "7" / "mine").write_text("")
    (base / "notes").mkdir()
    assert serving.push(models[1], base, {}) == base / "8"
    assert [p.name for p in base.iterdir() if p.is_dir() and p.name.startswith(".")] == []
    assert json.loads((first / "pushed.json").read_text())["digest"] == serving.model_digest(models[0])
    with pytest.raises(UserError, match="is no SavedModel"):
        serving.push(tmp_path, base, {})


def test_a_push_that_was_killed_leaves_nothing(models, tmp_path):
    base = tmp_path / "saved_models" / "net"
    kill = "import os, shutil, sys, pathlib; from tf_mwnet.export import serving\n"
    kill += "os.replace = lambda *_: os._exit(9)\n"
    kill += "serving.push(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), {})"
    done = subprocess.run([sys.executable, "-c", kill, str(models[0]), str(base)])
    assert done.returncode == 9
    assert serving.versions(base) == {}
    (left,) = base.glob(".pushing.*")
    assert (left / "saved_model.pb").is_file()
    assert serving.push(models[0], base, {}) == base / "1"
    assert not list(base.glob(".pushing.*"))


def test_pushes_at_the_same_time(models, tmp_path):
    base = tmp_path / "net"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda k: serving.push(models[k % 2], base, {}), range(6)))
    assert set(found) <= set(serving.versions(base).values())
    for path in found:
        said = json.loads((path / "pushed.json").read_text())["digest"]
        assert said == serving.model_digest(path)


@pytest.mark.slow
def test_a_model_that_can_not_be_served(models):
    request = np.linspace(0, 5, 8, dtype=np.float32)[:, None]
    assert serving.check(models[0], request)["problems"] == []
    assert "allowed: 0 to 1" in serving.check(models[1], request)["problems"][0]
    (models[0] / "variables" / "variables.index").write_bytes(b"")
    assert "does not answer" in serving.check(models[0], request)["problems"][0]


# -------------------------------------------------------------------- store and lineage


def test_lineage(models, tmp_path, capsys):
    store = Store(tmp_path / "home")
    made = tmp_path / "home" / "examples"
    made.mkdir()
    (made / "rows").write_text("1,2")
    first = store.begin("example_gen", {"flags": ["--dataset=digits"]}, {"keras": "3"}, {})
    store.finish(first, {"examples": str(made)}, {"examples": {"train": 7}})
    second = store.begin("trainer", {"flags": ["--seed=3"]}, {"keras": "3"}, {"biased": str(made)})
    store.finish(second, {"model": str(models[0])}, {"last": 0.5})
    target = serving.push(models[0], tmp_path / "net", {})
    third = store.begin("pusher", {"name": "net"}, {"keras": "3"}, {"model": str(models[0])})
    store.finish(third, {"pushed": str(target)}, {}, serving.model_digest(target))
    assert lineage.main([str(target), f"--home={tmp_path / 'home'}"]) == 0
    text = capsys.readouterr().out
    for part in ("pusher #3", "trainer #2", "example_gen #1", "--seed=3", "--dataset=digits", "keras 3",
                 f"{'examples.train':<42}7", "model from #2"):  # fmt: skip
        assert part in text, text
    copied = tmp_path / "elsewhere"
    os.rename(target, copied)
    assert lineage.main([str(copied), f"--home={tmp_path / 'home'}", "--json"]) == 0
    assert [row["component"] for row in json.loads(capsys.readouterr().out)][-1] == "example_gen"
    assert lineage.main([str(models[1]), f"--home={tmp_path / 'home'}"]) == 2
    assert "knows nothing of" in capsys.readouterr().err
    assert lineage.main([str(models[1]), f"--home={tmp_path / 'nowhere'}"]) == 2
    assert "has no lineage.sqlite; allowed" in capsys.readouterr().err


def test_store_finds_what_was_damaged_or_killed(tmp_path):
    store = Store(tmp_path)
    for name in ("good", "bad", "outside"):
        folder = tmp_path / "artifacts" / name if name != "outside" else tmp_path.parent / "outside"
        folder.mkdir(parents=True)
        (folder / "rows").write_text("1,2")
        store.finish(store.begin("example_gen", {}, {}, {}), {name: str(folder)}, {})
    (tmp_path / "artifacts" / "good" / "notes").write_text("added later")
    (tmp_path / "artifacts" / "bad" / "rows").write_text("1,")
    (tmp_path.parent / "outside" / "rows").write_text("1,")
    assert store.damaged(tmp_path / "artifacts") == [str(tmp_path / "artifacts" / "bad")]
    store.begin("trainer", {}, {}, {})
    assert store.end_running() == ["trainer"]
    assert store.rows("SELECT error FROM tasks WHERE state = 'failed'") == [
        {"error": "its process was killed"}
    ]
    (tmp_path / "lineage.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        Store(tmp_path)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "lineage.sqlite").execute("SELECT 1 FROM tasks")


def test_pages_are_where_people_find_them(tmp_path):
    store = Store(tmp_path)
    for number in (1, 2):
        path = tmp_path / "artifacts" / f"page{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<p>{number}</p>")
        store.finish(store.begin("statistics_gen", {}, {}, {}), {"page": str(path)}, {})
    store.fail(store.begin("label_audit", {}, {}, {}), "no labels")
    text = outcome.report(store, 0.0, tmp_path / "pages")
    found = sorted((tmp_path / "pages").iterdir())
    assert [p.read_text() for p in found] == ["<p>2</p>", "<p>1</p>"]
    assert [p.name for p in found] == ["data-2.html", "data.html"]
    assert all(f"page          {p}" in text for p in found)
    assert not outcome.keep_pages(
        store, store.rows("SELECT max(started) AS t FROM tasks")[0]["t"], tmp_path
    )


def test_the_report_says_how_good_the_model_is(tmp_path):
    store = Store(tmp_path)
    judged = {"accuracy": 0.89, "interval": [0.861, 0.914], "baseline_accuracy": 0.845, "reasons": []}
    pushed = {"pushed": "models/net/2", "new": True, "reasons": []}
    for part, push, words in (
        ({"blessed": True}, pushed, ["baseline 84.5 %; blessed", "pushed        models/net/2"]),
        (
            {"blessed": True},
            pushed | {"new": False},
            ["unchanged     models/net/2 is this model already"],
        ),
        (
            {"blessed": False, "reasons": ["worse"]},
            {"pushed": None, "reasons": ["worse"]},
            ["not blessed: worse", "not pushed    net: worse"],
        ),
    ):
        start = time.time()
        store.finish(store.begin("evaluator", {}, {}, {}), {}, judged | part)
        store.finish(store.begin("pusher", {"name": "net"}, {}, {}), {}, push)
        text = outcome.report(store, start, tmp_path / "pages")
        assert "result        accuracy 89.0 % (86.1 to 91.4), baseline 84.5 %" in text
        assert all(word in text for word in words), text
        assert ("\npushed " in text) == push.get("new", False)
    text = outcome.report(store, time.time(), tmp_path / "pages")  # nothing had to be done
    assert "not blessed: worse" in text
    assert "pushed  " not in text


def test_what_was_pushed_is_never_removed(models, tmp_path):
    home = tmp_path / "home"
    store = Store(home)
    made = home / "artifacts" / "run-1" / "trainer" / "model"
    made.mkdir(parents=True)
    (made / "weights").write_text("1,2")
    store.finish(store.begin("trainer", {}, {}, {}), {"model": str(made)}, {})
    pushed = serving.push(models[0], home / "saved_models" / "net", {})
    store.finish(store.begin("pusher", {}, {}, {}), {"pushed": str(pushed)}, {})
    (pushed / "model_card.json").write_text("{}")
    (pushed / "pushed.json").write_text("{}")  # edited by hand
    (made / "weights").write_text("1,")
    running._tidy(store, home)
    assert (pushed / "saved_model.pb").is_file()
    assert not made.exists()


# -------------------------------------------------------------------- commands


def test_compiled_pipeline_runs_the_commands_that_run_here(tmp_path, capsys):
    path = tmp_path / "pipeline.yaml"
    line = ["--flagfile=configs/digits_pipeline.cfg", f"--output={path}", "--image=registry/mine:1"]
    root = pathlib.Path(__file__).resolve().parents[1]
    line[0] = f"--flagfile={root / 'configs' / 'digits_pipeline.cfg'}"
    assert compiling.main([*line, "--search=lr=0.1,0.03"]) == 0
    spec = yaml.safe_load(path.read_text())
    executors = {k.removeprefix("exec-"): v for k, v in spec["deploymentSpec"]["executors"].items()}
    assert {"example-gen", "tuner", "trainer", "trainer-2", "pusher", "label-audit"} <= set(executors)

    from kfp import components as engine

    from pipelines import components

    loaded = engine.load_component_from_file(str(path))  # the engine's own validator
    assert loaded.name == "tf-mwnet-digits-flip2"
    for name, executor in executors.items():
        plain = name.rstrip("-0123456789").replace("-", "_")
        mine = getattr(components, plain).component_spec.implementation.container
        assert executor["container"]["command"] == list(mine.command)
        assert executor["container"]["args"] == list(mine.args)
        assert f'tasks.perform("{plain}", locals())' in " ".join(executor["container"]["command"])
    tasks_there = spec["root"]["dag"]["tasks"]
    assert tasks_there["bias-gen"]["dependentTasks"] == ["example-gen", "example-validator"]
    assert "/" not in json.dumps(tasks_there["trainer"]["inputs"]["parameters"]["home"])
    assert compiling.main(line) == 2
    assert "is there already; allowed: a new file, or --force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--baseline=mwnet", "baseline is 'mwnet', as method is"),
        ("--baseline=nn", "unknown baseline 'nn'"),
        ("--margin=2", "margin is 2; allowed: 0 to 1"),
        ("--confidence=1", "confidence is 1; allowed: between 0 and 1"),
        ("--search=lr", "search is 'lr'; allowed: <flag>=<values between commas>"),
        ("--search=noise=flip", "search has 'noise'; allowed: flags of method"),
        ("--search=lr=0", "lr is 0; allowed: above 0"),
        ("--trials=0", "trials is 0; allowed: at least 1"),
        ("--name=a/b", "name is 'a/b'; allowed: a name without '/'"),
        ("--run_dir=x", "run_dir is set; allowed: home"),
        ("--dataset=npz", "dataset is npz without data_dir"),
        ("--beam=workers=2", "beam has the option 'workers'"),
        ("--beam=direct_num_workers=x", "invalid int value: 'x'; allowed: as Beam's options have it"),
        ("--runner=Fink", "unknown runner 'Fink'"),
        ("--lrr=1", "unknown flag '--lrr' (did you mean '--lr'?); allowed: those"),
        ("--data_dir=nowhere", "data_dir is 'nowhere' with dataset 'digits'; allowed: with another"),
    ],
)
def test_bad_flags(flag, message, tmp_path, capsys):
    assert running.main(["--method=mwnet", f"--home={tmp_path / 'home'}", flag]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not (tmp_path / "home" / "artifacts").exists()


def test_data_that_is_not_there():
    with pytest.raises(UserError, match="data_dir 'nowhere' is not there; allowed: a folder or a file"):
        settings.stamp(parse(["--dataset=folder", "--data_dir=nowhere"]))


def test_flags_go_to_the_components_they_matter_to():
    config = parse(["--noise=flip", "--lr=0.2", "--classes=4,9", "--method=rmnw", "--meta_size=20"])
    assert set(settings.flags_of(config, "example_gen")) == {
        "--classes=4,9", "--meta_size=20", "--meta_labels=noisy", "--noise=uniform",
    }  # fmt: skip
    assert "--noise=flip" in settings.flags_of(config, "bias_gen")
    assert set(settings.flags_of(config, "trainer")) == {"--lr=0.2", "--method=rmnw"}


def test_scale(tmp_path, capsys):
    images = tmp_path / "images"
    scale.make_images(images, 400, 8)
    made = [scale.own_work(name, images, tmp_path / "out", []) for name in scale.COMPONENTS]
    assert all(found["seconds"] > 0 and found["peak_mb"] > 100 for found in made)
    facts = records.read_facts(tmp_path / "out" / "examples")
    assert {split: v["examples"] for split, v in facts["splits"].items()} == {"train": 360, "test": 40}
    _, groups = statistics.read(tmp_path / "out" / "statistics")
    assert groups == []  # the images are different ones
    for flag, message in (
        ("--sizes=many", "sizes are 'many'; allowed: integers"),
        ("--sizes=7", "a size in sizes is 7; allowed: at least 200"),
        ("--measure=trainer", "unknown component 'trainer'"),
    ):
        assert scale.main([flag]) == 2
        assert message in capsys.readouterr().err
