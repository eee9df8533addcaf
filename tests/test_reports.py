"""Report pages: their parts, several runs side by side, and in a real browser."""

import dataclasses
import json
import re
import shutil
import urllib.parse
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from browser import exercise, needs_browser
from PIL import Image
from runs import SHORT
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tf_mwnet import Experiment, run
from tf_mwnet.audit import outputs
from tf_mwnet.audit.examine import examine
from tf_mwnet.data import from_arrays
from tf_mwnet.figures import curves, matrices, pictures, run_data
from tf_mwnet.main import main as train
from tf_mwnet.main import report as report_of
from tf_mwnet.reports import __main__ as command
from tf_mwnet.reports import compare, settings

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
        self.links, self.images, self.alts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images.append(found["src"])
            self.alts.append(found["alt"])
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
    assert {p.stem for p in place.glob("*.png")} == NAMES
    lines = [src for src in page.images if src.startswith("data:image/svg+xml,")]
    worst = [src for src in page.images if src.startswith("data:image/webp;base64,")]
    assert (len(lines), len(worst)) == (len(NAMES), 64)
    assert len(page.images) == len(lines) + len(worst)
    assert len(text) < 700_000
    assert len(set(page.alts)) > 60
    assert any(re.match(r"Test accuracy over epochs. erm, test: from [\d.]+ % to", a) for a in page.alts)
    for source in lines:
        svg = ElementTree.fromstring(urllib.parse.unquote(source.partition(",")[2]))
        words = " ".join(text.text or "" for text in svg.iter("{http://www.w3.org/2000/svg}text"))
        assert "mathdefault" not in words
        assert words
    for link in page.links:  # nothing comes from a network; every part is there
        assert link.startswith(("data:", "#")) or (report / link).is_file(), link
    results = pd.read_csv(place / "results.csv")
    assert list(results.method) == ["erm", "mwnet"]
    result = json.loads((finished / "result.json").read_text())["methods"]
    assert results["last, %"][1] == pytest.approx(100 * result["mwnet"]["last"], rel=1e-4)
    assert len(pd.read_csv(place / "label_issues.csv")) == 1252
    assert len(pd.read_csv(place / "metrics_mwnet.csv")) == 3
    assert "Estimated wrong labels: " in text
    assert "steps_per_epoch=4" in text
    assert "network=" not in text  # the run has chosen it
    assert re.search(r"Noise: flip2, rate 0.4; \d\d.\d % of the training labels are wrong", text)
    assert "mean of last 5" not in text.partition("<footer>")[0]  # of three epochs


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_report_in_a_browser(report, tmp_path, width):
    found = exercise(report / "index.html", tmp_path, width)
    assert found["problems"] == []
    pictures = list((report / "digits").glob("*.png"))
    assert len(pictures) == 9
    images = sorted(found["images"])  # pixels across: loaded
    assert len(images) == 64 + len(pictures)
    assert images[:64] == [8] * 64  # the worst labels
    assert images[64] > 300
    assert found["wide"] <= 0  # wide tables scroll in their own box
    assert found["levels"][0] == 1
    assert max(np.diff(found["levels"])) <= 1  # no level of headings is left out
    assert found["links"] == [True] * 64  # from a row to its picture
    assert found["left"] == [found["ids"][3]]  # by words
    assert found["count"] == "1 of 200 rows"

    def number(cell):
        return 0.0 if cell == "<0.001" else float(cell)

    before = [number(v) for v in found["before"]]
    issues = pd.read_csv(report / "digits" / "label_issues.csv")
    np.testing.assert_allclose(before, issues.label_quality[:200], atol=5.1e-4)
    rising, falling = found["orders"]
    assert (rising["sort"], falling["sort"]) == ("ascending", "descending")
    assert [number(v) for v in rising["values"]] == sorted(before)
    assert [number(v) for v in falling["values"]] == sorted(before, reverse=True)
    assert found["ids"] == sorted(found["ids"])


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
    assert row.seeds == 2
    assert row["last"] == f"{np.mean(lasts):.2f} ± {np.std(lasts, ddof=1):.2f}"
    assert (tmp_path / "out" / "comparison" / "error_noise_rate.png").is_file()
    assert (tmp_path / "out" / "gdw_0.4_0" / "class_weights_gdw.png").is_file()
    text = (tmp_path / "out" / "index.html").read_text()
    assert "Side by side" in text
    sources = re.findall(r'src="(data:image/svg[^"]*)"', text)
    assert len(set(sources)) == len(sources)  # each once
    noise = re.findall(r"<figcaption>([^<]*)</figcaption>", text.partition("<h3>Noise")[2])[:2]
    assert noise == ["digits; gdw_0.4_0", "gce_0.2_0; gce_0.2_1"]  # pairs have the same labels
    assert len(sources) == len(list((tmp_path / "out").glob("*/*.png"))) - 2
    assert len(text) < 1_500_000
    beside = text.partition("<h3>Confusion matrix of the test set")[2].partition("<h3>")[0]
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", beside)
    assert sorted(captions) == [
        "digits, erm", "digits, mwnet", "gce_0.2_0, gce", "gce_0.2_1, gce", "gdw_0.4_0, gdw",
    ]  # fmt: skip


def test_noise_of_an_audit_is_shown(finished, report, tmp_path):
    """What the neighbours' labels give, and not the method, is shown once."""
    found = run_data.read(finished).matrices()
    assert set(found) == {"requested", "realised", "estimated (mwnet)"}  # in its hidden layer
    assert all(m.shape == (10, 10) for m in found.values())
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / "mwnet" / "audit" / "audit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"estimated_from": "neighbours"}))
    shutil.copytree(path.parent, folder / "erm" / "audit", dirs_exist_ok=True)
    found = run_data.read(folder).matrices()
    assert set(found) == {"requested", "realised", "estimated (neighbours)"}


def test_labels_of_a_page(report):
    """What is suggested comes first; a set that is the same for all, and empty columns, are left out."""
    text = (report / "index.html").read_text()
    table = text.partition("Labels, worst first")[2]
    heads = re.findall(r'title="sort">([^<]*)<', table.partition("</thead>")[0])
    assert heads[:6] == [
        "rank",
        "given label",
        "predicted label",
        "label quality",
        "is label issue",
        "id",
    ]
    assert "given label is right" in heads
    assert "set" not in heads
    assert "weight: of the example x batch size (1 is plain training)" in table.partition("<h3>")[0]
    assert list(pd.read_csv(report / "digits" / "label_issues.csv"))[:2] == ["id", "set"]
    assert re.search(r"Precision: [\d.]+ % of the \d+ lowest-quality labels are wrong", text)
    assert text.count('class="examples"') == 2  # the second list unfolds
    assert "<summary>46 more</summary>" in text


def test_unchecked_labels_give_no_accuracy(tmp_path, rng):
    """A perfect classifier agrees with as many labels as are right; the audit works its accuracy out."""
    true = np.arange(1200) % 3
    x = (np.eye(3, 6)[true] * 4 + rng.normal(0, 0.4, (1200, 6))).astype(np.float32)
    y = np.where(rng.random(1200) < 0.3, (true + 1) % 3, true)
    source = from_arrays(x, y, name="mine")
    folder = tmp_path / "mine"
    config = Experiment("x", method="gce", epochs=6, meta_size=0, run_dir=str(folder), lr_drops=(4,))
    result = run(config, source)
    assert not result.splits.test_checked
    assert report_of(result, 1.0).splitlines()[1].startswith("agreement with given labels")
    found = examine(result)
    assert outputs.summary(found)["estimated_from"] == "neighbours"  # in the inputs
    said = dict(outputs.lines(found))
    predicted = run_data.read(folder).predictions("gce")
    share = found.agreement.share
    assert (
        said["agreement with given labels"] == f"{100 * share:.1f} % of {len(predicted)} test examples"
    )
    assert 0.6 < share < 0.8
    rows = [int(name.rpartition("/")[2]) for name in result.splits.test.ids]
    right = (predicted == true[rows]).mean()
    assert right > 0.95
    _, low, high = found.agreement.accuracy
    assert low <= right <= high
    drawn = {p.kind: p for p in pictures.of_run(run_data.read(folder))}
    assert drawn["confusion"].figure.axes[0].get_ylabel() == "given label"
    assert drawn["accuracy"].figure.axes[0].get_ylabel() == "agreement with given labels (%)"
    (row,) = compare.read_run(folder)
    assert compare.value_of(row, "noise_rate") == "unknown"
    checked = run(
        dataclasses.replace(config, run_dir=str(tmp_path / "checked"), epochs=1, lr_drops=()),
        from_arrays(x, y, x[:90], true[:90], name="mine"),
    )
    assert checked.splits.test_checked  # a test set of one's own
    assert examine(checked).agreement is None


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


def damaged(finished, folder, name, content):
    shutil.copytree(finished, folder)
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mwnet/examples/epoch_0003.npz", b"PK", "cannot be read"),
        ("erm/metrics.csv", b"garbage\n", "no columns 'epoch' and 'test_accuracy'"),
        ("erm/metrics.csv", b"epoch,test_accuracy\n1,0.5\n2\n", "cannot be read"),
        ("erm/metrics.csv", b"epoch,test_accuracy\n1,7\n", "a test accuracy that is not 0 to 1"),
        ("erm/metrics.csv", b"", "is not there or empty"),
    ],
)
def test_a_damaged_run_alone(finished, tmp_path, name, content, reason, capsys):
    folder = damaged(finished, tmp_path / "b", name, content)
    assert command.main([f"--runs={folder}", f"--out={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert f"'{folder / name}'" in err
    assert reason in err
    assert not (tmp_path / "out").exists()


def test_a_damaged_run_among_others_is_left_out(finished, tmp_path, capsys):
    folder = damaged(finished, tmp_path / "b", "mwnet/examples/epoch_0003.npz", b"PK")
    out = tmp_path / "out"
    assert command.main([f"--runs={finished},{folder}", f"--out={out}"]) == 0
    file = folder / "mwnet" / "examples" / "epoch_0003.npz"
    assert f"left out: '{file}' cannot be read" in capsys.readouterr().err
    page = (out / "index.html").read_text()
    assert "<title>Report of digits</title>" in page
    assert "not finished" not in page
    (folder / "result.json").write_text("{")
    assert compare.main([f"--runs={finished},{folder}"]) == 0
    assert f"left out: '{folder / 'result.json'}' cannot be read" in capsys.readouterr().err


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
    assert "auc_of_wrong_labels/by_weight" in found
    content = tags(finished / "tensorboard")["_hparams_/experiment"].content
    table = HParamsPluginData.FromString(content).experiment
    assert [m.display_name for m in table.metric_infos] == [
        "test accuracy, last epoch", "test accuracy, best epoch", "AUC of wrong labels by weight",
        "AUC of wrong labels by mean weight of up to 5 epochs", "AUC of wrong labels by loss",
    ]  # fmt: skip
    assert {m.name.tag for m in table.metric_infos} <= set(found)
    assert table.hparam_infos[0].name == "method"


def test_changed_settings_show_methods_as_they_are_written():
    options = {"gdw": {"eta": 1000.0, "clip": 0.2, "zero_mean": False}, "focal": {"gamma": 2.0}}
    config = {"method": "gdw", "compare": "focal", "method_options": options, "epochs": 9, "lr": 0.1}
    config["hidden"] = [50, 20]
    assert settings.changed_settings(config) == [
        "method=gdw --eta=1000 --zero_mean=false", "compare=focal", "epochs=9", "hidden=50,20",
    ]  # fmt: skip
