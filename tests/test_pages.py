"""What pages and pictures say: agreements and accuracies, settings, colours, names, tables, by hand."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

from tf_mwnet import Experiment
from tf_mwnet.audit import agreement
from tf_mwnet.experiment.resolve import with_bias, with_sizes
from tf_mwnet.figures import (
    colours,
    comparisons,
    curves,
    galleries,
    matrices,
    pictures,
    plots,
    tables,
)  # fmt: skip
from tf_mwnet.methods import METHODS
from tf_mwnet.reports import page, settings, side_by_side


@pytest.mark.parametrize("right", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_accuracy_from_noisy_labels(right, classes):
    rng = np.random.default_rng(0)
    matrix = 0.7 * np.eye(classes) + 0.3 * np.roll(np.eye(classes), 1, axis=1)
    true = rng.integers(0, classes, 20_000)
    wrong = (true + rng.integers(1, classes, len(true))) % classes
    predicted = np.where(rng.random(len(true)) < right, true, wrong)
    labels = np.where(rng.random(len(true)) < 0.7, true, (true + 1) % classes)
    agreed = (predicted == labels).mean()
    assert agreed < right - 0.05 or right < 0.7
    found, low, high = agreement.accuracy(predicted, labels, matrix)
    assert found == pytest.approx((predicted == true).mean(), abs=0.02)
    assert low <= found <= high
    assert agreement.accuracy(predicted, labels, np.full((classes, classes), 1 / classes)) is None


def test_accuracy_by_hand():
    """Three of four agree; T gives 0.8 to right and 0.2 to wrong ones: (0.75 - 0.2) / 0.6."""
    matrix = np.array([[0.8, 0.2], [0.2, 0.8]])
    found = agreement.accuracy(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), matrix)
    assert found[0] == pytest.approx(0.55 / 0.6)
    assert found[2] == 1


@pytest.mark.parametrize(("epochs", "known"), [(2, False), (4, False), (5, True)])
def test_a_mean_of_five_is_one_of_five(epochs, known):
    rows = [{"epoch": e + 1, "test_accuracy": e / 10} for e in range(epochs)]
    found = tables.summary(rows)
    assert ("mean_last_5" in found) == known
    text = tables.methods_table({"erm": found | {"seconds": 1.0}})
    assert text.splitlines()[-1].split()[3] == ("20.00" if known else "-")


def test_table_of_aucs(monkeypatch):
    """It fits 100 columns, and says what is below chance."""
    monkeypatch.setenv("COLUMNS", "100")
    row = {"auc_weight": 0.177, "auc_mean_weight": 0.16, "auc_loss": 0.879}
    row |= {f"{name}_best": value for name, value in row.items()}
    row |= {f"auc_{score}_best_epoch": 100 for score in tables.SCORES}
    text = tables.auc_table({"erm": {}, "cmwnet_sl+unfreeze": row})
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    assert lines[2].split("  ")[0] == "method"
    assert set(lines[3]) == {"-", " "}  # headings of one line
    assert lines[-1] == "0.5 is chance; below it wrong labels weigh more"
    good = row | {"auc_weight": 0.7, "auc_mean_weight": 0.7, "auc_loss": 0.4}  # a loss is no weight
    assert "below it" not in tables.auc_table({"mwnet": good})


def test_further_tables_repeat_what_identifies_a_line():
    header = ["data", "method", *"abcdef"]
    lines = [["digits", name, *["0.123456789"] * 6] for name in ("erm", "mwnet")]
    first, second = tables.text(header, lines, range(2, 8), width=60, keys=2).split("\n\n")
    for part in (first, second):
        assert [line.split()[:2] for line in part.splitlines() if "0.1" in line] == [
            ["digits", "erm"], ["digits", "mwnet"]
        ]  # fmt: skip
    text = tables.text(["a", "b"], [["1", "2"], ["3", "4"]], below=["--x=1", "--y=2"])
    assert text.splitlines()[2:] == ["1  2", "    --x=1", "3  4", "    --y=2"]


def row_of(config, **more):
    resolved = with_sizes(with_bias(config, True, True), (8, 8, 1), 1252, config.meta_size)
    saved = json.loads(resolved.to_json())
    facts = {"shape": (8, 8, 1), "train_examples": 1252, "truth_known": True, "test_checked": True}
    return saved, saved | facts | more


def test_settings_that_a_run_chooses_are_left_out():
    saved, row = row_of(Experiment(epochs=7, batch_size=50))
    assert settings.changed_settings(saved, settings.automatic(saved, row)) == [
        "method=mwnet", "epochs=7", "batch_size=50"
    ]  # fmt: skip
    saved, row = row_of(Experiment(network="mlp", steps_per_epoch=3, meta_lr=0.1, speed="fast"))
    assert settings.changed_settings(saved, settings.automatic(saved, row)) == [
        "method=mwnet", "network=mlp", "steps_per_epoch=3", "meta_lr=0.1", "speed=fast"
    ]  # fmt: skip


def test_a_method_has_one_colour():
    found = [colours.of_method(name) for name in METHODS]
    assert len(set(found)) == len(METHODS)
    assert not {colours.RIGHT, colours.WRONG} & set(found)
    assert colours.of_method("gdw --eta=10") == colours.of_method("gdw+FT") == colours.of_method("gdw")
    alone = dict((name, colour) for name, _, colour in colours.coloured({"gce": 0}))
    beside = dict((n, colour) for n, _, colour in colours.coloured({"erm": 0, "mwnet": 0, "gce": 0}))
    assert alone["gce"] == beside["gce"]
    variants = colours.coloured({"gdw": 0, "gdw --eta=10": 0})
    assert variants[0][2] != variants[1][2]
    rows = [{"epoch": 1, "test_accuracy": 0.5, "train_accuracy": 0.5, "loss": 1.0}] * 3
    for figure in (plots.accuracy({"gce": rows}), curves.losses({"gce": rows}, {})):
        assert colors.same_color(figure.axes[0].lines[0].get_color(), colours.of_method("gce"))


def test_a_meta_loss_is_called_what_it_is():
    rows = [{"epoch": e, "loss": 2.0, "meta_loss": 1.5} for e in (1, 2)]
    figure = curves.losses({"mwnet": rows, "rmnw": rows}, {"mwnet": "cross_entropy", "rmnw": "mae"})
    training, meta = figure.axes
    assert training.get_ylabel() == "training: mean cross-entropy (nats)"
    assert meta.get_ylabel() == "meta set: mean loss of each method"
    assert [text.get_text() for text in meta.get_legend().get_texts()] == [
        "mwnet, meta set: cross-entropy (nats)", "rmnw, meta set: absolute error (0 to 2)"
    ]  # fmt: skip
    (training, meta) = curves.losses({"rmnw": rows}, {"rmnw": "mae"}).axes
    assert meta.get_ylabel() == "meta set: mean absolute error (0 to 2)"
    assert len(curves.losses({"erm": [{"epoch": 1, "loss": 1.0}]}, {}).axes) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_epochs_are_whole_numbers(count):
    row = {"test_accuracy": 0.5, "train_accuracy": 0.5, "loss": 2.0, "meta_loss": 1.5, "auc_loss": 0.7}
    rows = {"mwnet": [row | {"epoch": e} for e in range(1, count + 1)]}
    drawn = [plots.accuracy(rows), curves.losses(rows, {"mwnet": "mae"}), curves.aucs(rows)]
    drawn.append(
        curves.weight_change({"mwnet": (np.random.default_rng(0).random((count + 1, 30)), None)})
    )
    for figure in drawn:
        figure.draw_without_rendering()
        low, high = figure.axes[-1].get_xlim()
        ticks = [t for t in figure.axes[-1].get_xticks() if low <= t <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)
        assert figure.axes[-1].lines[0].get_marker() == ("o" if count < 3 else "")  # a point is seen


def test_legend_of_aucs_lies_beside_the_lines():
    rows = [{"epoch": e, "auc_loss": 0.5, "auc_weight": 0.5, "auc_mean_weight": 0.5} for e in (1, 2)]
    figure = curves.aucs({"erm": rows, "mwnet": rows})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_pictures_side_by_side_are_on_one_scale():
    def drawn(kind, figure):
        return pictures.Picture(kind, "", figure, "")

    def auc(value, epochs):
        return curves.aucs({"mwnet": [{"epoch": e, "auc_loss": value} for e in range(1, epochs + 1)]})

    rng = np.random.default_rng(0)
    changes = [curves.weight_change({"mwnet": (s * rng.random((4, 30)), None)}) for s in (0.1, 3)]
    weights = [plots.example_weights(s * rng.random(50), None, "") for s in (1, 9)]
    figures = {"auc": [auc(0.2, 3), auc(0.9, 5)], "weight_change": changes, "example_weights": weights}
    figures["confusion"] = [matrices.draw({"": np.eye(n)}, "abc"[:n], "", "") for n in (2, 3)]
    pictures.share_limits([drawn(kind, f) for kind, pair in figures.items() for f in pair])
    for kind, (first, second) in figures.items():
        limits = [(f.axes[0].get_xlim(), f.axes[0].get_ylim()) for f in (first, second)]
        assert (limits[0] == limits[1]) == (kind != "confusion")
    low, high = figures["auc"][1].axes[0].get_ylim()
    assert low < 0.2
    assert high == pytest.approx(1.01)


def test_each_epoch_of_a_weight_function_is_seen_on_white_and_in_the_dark():
    def brightness(colour):
        part = np.array(colors.to_rgb(colour))
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    grid = np.linspace(0, 5, 9)
    figure = plots.weight_function(grid, {e: grid / 5 for e in range(1, 7)}, grid)
    for line in figure.axes[0].lines:
        shown = brightness(line.get_color())
        # The dark page turns brightness around; WCAG asks graphics for a contrast of 3.
        dark = brightness(0.92 - 0.84 * np.array(colors.to_rgb(line.get_color())))
        assert 1.05 / (shown + 0.05) >= 3
        assert (dark + 0.05) / (brightness("#141414") + 0.05) >= 3


def test_a_picture_shown_by_several_runs_is_there_once():
    shown = [page.Image("noise", "Noise", "", source, "", "", caption=name)
             for source, name in (("x", "a"), ("x", "b"), ("y", "c"))]  # fmt: skip
    (row,) = side_by_side._beside([page.Section(i.caption, [], [], [i]) for i in shown])
    assert [i.caption for i in row.images] == ["a; b", "c"]


def test_thirty_long_names_stand_beside_their_rows():
    names = [f"a class with a rather long name, number {i}" for i in range(30)]
    figure = matrices.draw({"one": np.eye(30), "two": np.eye(30)}, names, "predicted", "true")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == [f"{n}  {i}" for i, n in enumerate(names, 1)]
    boxes = [label.get_window_extent() for label in labels]
    assert min(box.x0 for box in boxes) >= 0  # none is cut
    assert all(not first.overlaps(second) for first, second in itertools.pairwise(boxes))
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["1", "2", "3"]


def test_panels_of_a_sweep_are_on_one_scale():
    panels = {"easy": {"erm": [90.0, 92.0], "gce": [95.0]}, "hard": {"erm": [30.0], "gce": [20.0]}}
    first, second = comparisons.methods(panels).axes
    assert first.get_xlim() == second.get_xlim()
    for some in ({"a": {"erm": [90.0], "gce": [80.0]}}, panels):
        figure = comparisons.methods(some)
        figure.draw_without_rendering()
        words = figure._supxlabel.get_window_extent()
        assert words.x0 >= 0  # it is not cut
        assert words.x1 <= figure.bbox.x1
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["mean of erm", "below it"]
    alone = comparisons.methods({"a": {"gce": [80.0]}})  # nothing to be below
    assert alone.axes[0].lines[0].get_markerfacecolor() != "white"
    figure = comparisons.errors({"erm": {0.0: [10.0], 0.4: [20.0, 30.0]}}, "noise rate")
    (bars,) = figure.axes[0].containers[0][2]
    lengths = [np.ptp(segment[:, 1]) for segment in bars.get_segments() if np.size(segment)]
    assert lengths == [pytest.approx(2 * np.std([20, 30], ddof=1))]  # none of one seed


def test_names_of_the_worst_labels_are_whole():
    name = "train/cat/a_very_long_name_of_a_file_that_someone_has_given_0001.png"
    image = np.random.default_rng(0).random((1, 8, 8, 3))
    figure = galleries.worst_labels(image, [name], ["a" * 40], ["b"], [0.1234], [True], "title")
    text = figure.axes[0].get_xlabel().replace("\n", "")
    assert "a_very_long_name_of_a_file_that_someone_has_given_0001.png" in text.replace(" ", "")
    assert "a" * 40 in text
    assert "quality 0.123" in text
    assert text.startswith("1 ")


def test_numbers_of_a_column_have_the_same_digits(tmp_path):
    frame = pd.DataFrame(
        {
            "accuracy, %": [100.0, 9.5, np.nan],
            "auc": [0.5, 0.12345, 1.0],
            "quality": [0.0004, 0.0, 0.25],
            "of": ["x", "", None],
            "seconds": [12345.6, 1.0, 2.0],
            "is_issue": [True, False, True],
            "mean": ["90.6 ± 3.1", "-", "9.1"],
        }
    )
    found = page.table(tmp_path, "a.csv", "caption", frame, choose=["is_issue"], anchors=["x"])
    assert found.header[0] == "rank"
    assert [list(column) for column in zip(*found.rows, strict=True)] == [
        ["1", "2", "3"], ["100.00", "9.50", "-"], ["0.500", "0.123", "1.000"],
        ["<0.001", "0.000", "0.250"],
        ["x", "-", "-"], ["12346", "1", "2"],
        ["yes", "no", "yes"], ["90.6 ± 3.1", "-", "9.1"],
    ]  # fmt: skip
    assert list(found.numbers) == [True, True, True, True, False, True, False, True]
    assert found.choices == {6: ["no", "yes"]}
    short = page.table(tmp_path, "a.csv", "caption", pd.DataFrame({"seconds": [1.234, 10.0]}))
    assert [row[0] for row in short.rows] == ["1.2", "10.0"]
    show = {"auc": "AUC", "of": "of"}
    found = page.table(tmp_path, "a.csv", "caption", frame, show=show)
    assert (list(found.header), found.rows[0]) == (["AUC", "of"], ("0.500", "x"))
    assert list(pd.read_csv(tmp_path / "a.csv")) == list(frame)


def test_small_svg_keeps_its_texts():
    """Numbers of paths are cut to two decimals, those on an axis are not."""
    figure, axes = plots.new_axes("0.123456", "y", "A < B & 'C' \"D\"")
    axes.plot([0.1, 0.2], [1 / 3, 2 / 3])
    text = plots.svg(figure).decode()
    assert ">0.123456</text>" in text
    assert "A &lt; B &amp; 'C' \"D\"" in text
    assert len(text) < 12_000
    assert plots.svg(figure).decode() == text  # the same again
