"""Report pages: their parts, several runs side by side, and in a real browser."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from runs import SHORT
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tf_mwnet.figures import curves, matrices, pictures, run_data
from tf_mwnet.main import main as train
from tf_mwnet.reports import __main__ as command
from tf_mwnet.reports import page

NAMES = {"accuracy", "losses", "auc", "noise_matrix", "weight_function_mwnet", "example_weights_mwnet",
         "weight_change", "confusion_erm", "confusion_mwnet"}  # fmt: skip


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "page"
    assert command.main([f"--runs={finished}", f"--out={out}"]) == 0
    return out


class Page(HTMLParser):
    """Addresses that a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.images = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images.append(found["src"])
        self.links += [found[k] for k in ("href", "src") if k in found]


def test_a_run_has_its_pictures(finished):
    assert {p.stem for p in (finished / "plots").glob("*.png")} == NAMES
    for path in (finished / "plots").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20  # not empty
    predicted = run_data.read(finished).predictions("mwnet")
    with np.load(finished / "split.npz") as split:
        accuracy = (predicted == split["test_true_y"]).mean()
    result = json.loads((finished / "result.json").read_text())
    assert accuracy == pytest.approx(result["methods"]["mwnet"]["last"], abs=1e-6)


def test_page_and_its_parts(report, finished):
    text = (report / "index.html").read_text()
    page = Page(text)
    place = report / "digits"
    assert {p.stem for p in place.glob("*.png")} == NAMES | {"worst"}
    assert len(page.images) == len(NAMES) + 1
    assert all(src.startswith("data:image/png;base64,") for src in page.images)
    for link in page.links:  # nothing comes from a network; every part is there
        assert link.startswith(("data:", "#")) or (report / link).is_file(), link
    results = pd.read_csv(place / "results.csv")
    assert list(results.method) == ["erm", "mwnet"]
    result = json.loads((finished / "result.json").read_text())["methods"]
    assert results["last, %"][1] == pytest.approx(100 * result["mwnet"]["last"], rel=1e-4)
    assert len(pd.read_csv(place / "label_issues.csv")) == 1252
    assert len(pd.read_csv(place / "metrics_mwnet.csv")) == 3
    assert "estimated wrong labels: " in text
    assert "steps_per_epoch=4" in text


@pytest.mark.slow
def test_runs_side_by_side(finished, tmp_path, capsys):
    runs = tmp_path / "runs"
    for method, rate, seed in (("gce", 0.2, 0), ("gce", 0.2, 1), ("gdw", 0.4, 0)):
        line = [*SHORT, "--network=mlp", f"--method={method}", f"--noise_rate={rate}", f"--seed={seed}"]
        assert train([*line, f"--run_dir={runs / f'{method}_{rate}_{seed}'}"]) == 0
    shutil.copytree(finished, runs / "digits")
    (runs / "unfinished").mkdir()
    capsys.readouterr()
    assert command.main([f"--runs={runs}/*", f"--out={tmp_path / 'out'}", "--compare", "--noaudit"]) == 0
    printed = capsys.readouterr()
    assert "unfinished' holds no finished run" in printed.err
    means = pd.read_csv(tmp_path / "out" / "comparison" / "means.csv")
    row = means[(means.method == "gce") & (means.noise_rate == 0.2)].iloc[0]
    lasts = [
        100 * json.loads((runs / f"gce_0.2_{s}" / "result.json").read_text())["methods"]["gce"]["last"]
        for s in (0, 1)
    ]
    assert row.runs == 2
    assert row["last"] == f"{np.mean(lasts):.2f} ± {np.std(lasts, ddof=1):.2f}"
    assert (tmp_path / "out" / "comparison" / "error_noise_rate.png").is_file()
    assert (tmp_path / "out" / "gdw_0.4_0" / "class_weights_gdw.png").is_file()
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("Confusion matrix") >= 5
    assert "Side by side" in text


def test_noise_of_an_audit_is_shown(finished, report):
    found = run_data.read(finished).matrices()
    assert set(found) == {"requested", "realised", "estimated (mwnet)"}
    assert all(m.shape == (10, 10) for m in found.values())


# -------------------------------------------------------------------- pictures by hand


def test_confusion_counts():
    found = matrices.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])
    figure = matrices.draw({"counts": found}, ("a", "b", "c"), "predicted", "true")
    shown = sorted(t.get_text() for t in figure.axes[0].texts)
    assert shown == ["100", "100", "50", "50"]


def test_shares_of_increased_class_weights():
    change = np.array([[1.0, -1, 0], [1, 1, -1], [np.nan] * 3, [-1, -1, 1]])
    found = curves.increased_shares(change, np.array([0, 1, 0, 0]), np.array([0, 0, 0, 0]))
    np.testing.assert_allclose(found["given and true"], [0.5, np.nan, np.nan])
    np.testing.assert_allclose(found["given, not true"], [np.nan, 1, np.nan])
    np.testing.assert_allclose(found["true, not given"], [1, np.nan, np.nan])
    np.testing.assert_allclose(found["neither"], [np.nan, 0, 1 / 3])


def test_change_of_weights():
    weights = np.array([[0.0, 1, 2], [1, 1, 2], [3, 1, np.nan]])
    other = np.array([[0.0, 1], [2, 2], [2, 5], [0, 5]])
    histories = {"mwnet": (weights, np.array([True, False, False])), "l2rw": (other, None)}
    first, second = curves.weight_change(histories).axes
    lines = {line.get_label(): line.get_ydata() for line in first.lines}
    np.testing.assert_allclose(lines["1 wrong labels, mean"], [1, 2])
    np.testing.assert_allclose(lines["1 right labels, mean"], [0, 0])  # the last one was not always seen
    np.testing.assert_allclose(second.lines[0].get_ydata(), [1.5, 1.5, -1])
    band = second.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-2, 3)  # the last mean, -1, and the second, 1.5, ± deviation


def test_pictures_without_truth_or_meta_set(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "data.json").write_text(json.dumps({"classes": list("0123456789"), "truth_known": False}))
    for name in ("transition_matrix.csv", "realised_matrix.csv"):
        (folder / name).unlink()
    for audit in folder.glob("*/audit"):
        shutil.rmtree(audit)
    found = {p.name for p in pictures.of_run(run_data.read(folder))}
    assert found == NAMES - {"noise_matrix"}
    shutil.rmtree(folder / "mwnet" / "examples")  # nothing is known of weights then
    found = {p.name for p in pictures.of_run(run_data.read(folder))}
    assert found == {"accuracy", "losses", "auc", "confusion_erm", "confusion_mwnet"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--runs={tmp}/none*"], "no finished run matches"),
        (["--runs={run},{tmp}/copy/digits"], "two runs are called 'digits'"),
        (["--runs={run}", "--out={tmp}"], "holds files that are no report"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_bad_input(finished, tmp_path, capsys, line, message):
    shutil.copytree(finished, tmp_path / "copy" / "digits")
    line = [part.replace("{tmp}", str(tmp_path)).replace("{run}", str(finished)) for part in line]
    assert command.main(line) == 2
    err = capsys.readouterr().err
    assert message in err


def test_tensorboard_has_the_pictures_and_hyperparameters(finished):
    def tags(folder):
        found = {}
        for path in folder.glob("events*"):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    found[value.tag] = value.metadata.plugin_data
        return found

    assert set(tags(finished / "tensorboard" / "pictures")) == NAMES
    found = tags(finished / "tensorboard" / "mwnet")
    content = found["_hparams_/session_start_info"].content
    info = HParamsPluginData.FromString(content).session_start_info
    assert info.hparams["method"].string_value == "mwnet"
    assert info.hparams["noise_rate"].number_value == 0.4
    assert {"result/last", "result/auc_weight"} <= set(found)


def test_changed_settings_show_methods_as_they_are_written():
    options = {"gdw": {"eta": 1000.0, "clip": 0.2, "zero_mean": False}, "focal": {"gamma": 2.0}}
    config = {"method": "gdw", "compare": "focal", "method_options": options, "epochs": 9, "lr": 0.1}
    config["hidden"] = [50, 20]
    assert page.changed_settings(config) == [
        "method=gdw --eta=1000 --zero_mean=false", "compare=focal", "epochs=9", "hidden=50,20",
    ]  # fmt: skip
