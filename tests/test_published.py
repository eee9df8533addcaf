"""Published numbers: each has a command that can be parsed and means what the table says."""

import csv
import dataclasses
import json

import pytest
from runs import ROOT, SHORT

from tf_mwnet import Experiment
from tf_mwnet.cli.flags import parse
from tf_mwnet.main import main as train
from tf_mwnet.reports import matching, paper_figures, papers, published

ENTRIES = papers.entries()
BIAS = {"long_tail": "none", "real": "none", "uniform+long_tail": "uniform"}
# Steps of L2RW's runs and after which the rate drops, section 4.2.
SCHEDULES = {
    "resnet32": (80_000, [40_000, 60_000]),
    "early": (60_000, [40_000, 50_000]),
    "wrn28_10": (60_000, [40_000, 50_000]),
}


def asked(entry):
    flagfile, *rest = entry.arguments
    path = ROOT / flagfile.removeprefix("--flagfile=")
    return parse([f"--flagfile={path}", *rest])


def test_every_number_is_there():
    with papers.NUMBERS.open(newline="") as file:
        numbers = list(csv.DictReader(file))
    assert len(ENTRIES) == len(numbers) == 615
    assert all(e.published.startswith(n["value"]) for e, n in zip(ENTRIES, numbers, strict=True))


def test_commands_mean_what_the_tables_say():
    places = {}
    for entry in ENTRIES:
        config = asked(entry)
        folder = entry.dataset in papers.NEEDS
        assert config.dataset == ("folder" if folder else entry.dataset), entry.command
        assert config.network == entry.network, entry.command
        unbiased = entry.level in ("0", "0.0") and config.noise_rate == 0
        assert unbiased or config.noise == BIAS.get(entry.bias, entry.bias), entry.command
        if config.noise != "none":
            assert config.noise_rate == float(entry.level.split("+")[0]), entry.command
        if "long_tail" in entry.bias and not folder:
            assert config.imbalance_factor == float(entry.level.split("+")[-1]), entry.command
        # The row that is reported is one that the command's run will have.
        method, *endings = entry.row.split("+")
        assert method in config.methods, entry.command
        assert config.early_stopping == 0, entry.command
        if entry.source == "l2rw":
            steps, drops = SCHEDULES[entry.network if "+ES" not in entry.method else "early"]
            if entry.method == "CLEAN ONLY":
                steps, drops = 2_000, []
            assert config.epochs * config.steps_per_epoch == steps, entry.command
            assert [d * config.steps_per_epoch for d in config.lr_drops] == drops, entry.command
        assert ("FT" in endings) == (config.then_fine_tune == 5000), entry.command
        # Different experiments go to different folders.
        same = dataclasses.replace(config, compare="")
        assert places.setdefault(config.run_dir, same) == same, entry.command


def test_methods_by_name():
    found = {(e.source, e.method.rstrip("*")): e.row for e in ENTRIES}
    assert found["l2rw", "S-MODEL +CONF +ES +FT"] == "s_model+FT"
    assert found["l2rw", "MENTORNET +FT"] == "mentornet+FT"
    assert found["mwnet", "MentorNet"] == "mentornet_dd"
    assert found["mwnet", "Fine-tuning"] == "erm+FT"
    assert found["l2rw", "REED SOFT +ES"] == "bootstrap_soft"
    shape = next(e for e in ENTRIES if e.method == "MW-Net 1-10-10-1" and e.dataset == "cifar100")
    assert asked(shape).hidden == (10, 10)
    for star in [e for e in ENTRIES if e.method == "MW-Net*"]:  # trained again with RMNW-Net's settings
        config = asked(star)
        assert (config.method, config.meta_labels, config.lr) == ("mwnet", "clean", 0.05), star.command
    moved = next(e for e in ENTRIES if e.method == "Transferred MW-Net" and e.bias == "flip2")
    assert asked(moved).weight_net.startswith("runs/cifar10_flip")


def a_run(asked, **fields):
    """A row of a finished run with these settings, as `compare.read_run` gives it."""
    full = matching.resolved(asked, {"train_examples": 1000, "shape": [32, 32, 3]}, asked.method)
    row = json.loads(json.dumps(full | {"train_examples": 1000, "shape": [32, 32, 3]}))
    return row | {"method": asked.method} | fields


# Another value of each field, in a run, that changes the result.
CHANGED = {
    "dataset": "cifar100", "label_key": "coarse_label", "text_column": "words",
    "clean_label_key": "true",
    "resize": 16, "resize_sides": "both", "center_crop": 8,
    "classes": ["1", "2"], "scaling": "unit", "noise": "flip",
    "noise_rate": 0.3, "background_class": "3", "imbalance_factor": 2.0, "class_counts": [3] * 10,
    "train_size": 900, "test_fraction": 0.5, "meta_size": 99, "meta_labels": "noisy",
    "meta_balance": "true", "meta_loss": "mae", "hidden": [50], "normalise": False,
    "weight_net": "other", "weight_net_replay": False, "early_stopping": 10, "then_fine_tune": 5,
    "then_unfreeze": 2, "unfreeze_lr": 0.5, "fine_tune_unit": "epochs", "fine_tune_lr": 0.1,
    "network": "resnet18", "dropout": 0.1,
    "augment": "none", "epochs": 7, "steps_per_epoch": 9, "batch_size": 50, "meta_batch_size": 50,
    "optimizer": "adam", "mixup": 0.3, "meta_mixup": 0.4, "label_smoothing": 0.2, "grad_clip": 1.0,
    "ema": 0.5,
    "lr": 0.2, "schedule": "cosine", "lr_drops": [1], "momentum": 0.8, "nesterov": True, "l2": 0.0,
    "meta_optimizer": "sgd", "meta_lr": 0.5, "meta_l2": 0.1, "meta_schedule": "as_lr",
    "meta_scope": "head", "meta_every": 2, "meta_start": 4, "meta_warmup": 3, "meta_late": True,
    "meta_ema": 0.5, "speed": "fast",
    "precision": "mixed_bfloat16", "sync_batch_norm": True, "drop_duplicates": True, "backbone": "other",
    "backbone_size": 96, "backbone_scaling": "unit", "backbone_pooling": "max", "views": 2,
    "feature_dtype": "float16",
}  # fmt: skip
SAME = {
    "backbone_weights": "w", "features": "f",
    "data_dir": "x", "blank_images": "keep", "cache": "disk", "cache_dir": "y", "data_seed": 3,
    "noise_seed": 4, "seed": 5, "strategy": "mirrored", "replicas": 2, "run_dir": "z", "overwrite": True,
    "post_hoc_logit_adjustment": 1.0,
    "resume": True, "auto_resume": True, "jit_compile": True, "compare": "erm",
}  # fmt: skip


def test_every_field_that_changes_a_result_is_compared():
    """Asked for by default values, zeros and "auto" among them. A new field has to be put here."""
    names = {f.name for f in dataclasses.fields(Experiment)}
    assert {*CHANGED, *SAME, "method", "method_options"} == names
    asked = Experiment(dataset="cifar10", method="mwnet", noise="uniform", then_fine_tune=4)
    ran = a_run(asked)
    assert matching.matches(asked, ran, "mwnet")
    for name, value in CHANGED.items():
        assert not matching.matches(asked, ran | {name: value}, "mwnet"), name
    for name, value in SAME.items():
        assert matching.matches(asked, ran | {name: value}, "mwnet"), name
    older = {k: v for k, v in ran.items() if k not in ("meta_schedule", "nesterov", "scaling")}
    assert matching.matches(asked, older, "mwnet")  # they had the defaults


def test_a_start_of_fast_that_was_asked_for_is_compared():
    asked = Experiment(dataset="cifar10", method="mwnet", noise="uniform", speed="fast", epochs=10)
    ran = a_run(asked)
    assert (ran["meta_start"], ran["meta_warmup"]) == (3, 4)  # of 100 steps
    assert matching.matches(asked, ran, "mwnet")
    assert not matching.matches(asked, ran | {"meta_start": 5}, "mwnet")
    assert not matching.matches(asked, ran | {"meta_warmup": 5}, "mwnet")


def test_fields_that_do_not_matter_to_a_method():
    plain = Experiment(dataset="cifar10", method="erm", noise="uniform")
    ran = a_run(plain)
    for name in ("hidden", "meta_loss", "meta_lr", "meta_optimizer", "speed", "fine_tune_lr"):
        assert matching.matches(plain, ran | {name: CHANGED[name]}, "erm"), name
    for name in ("meta_size", "meta_labels", "then_fine_tune", "augment"):  # other training examples
        assert not matching.matches(plain, ran | {name: CHANGED[name]}, "erm"), name
    cosine = Experiment(dataset="cifar10", method="l2rw", schedule="cosine")
    assert matching.matches(cosine, a_run(cosine, lr_drops=[3], hidden=[7], normalise=False), "l2rw")
    assert not matching.matches(cosine, a_run(cosine, meta_batch_size=10), "l2rw")
    frozen = Experiment(dataset="cifar10", method="mwnet", weight_net="a/net")
    assert matching.matches(frozen, a_run(frozen, meta_lr=0.3), "mwnet")
    assert not matching.matches(frozen, a_run(frozen, weight_net_replay=False), "mwnet")
    option = Experiment(dataset="cifar10", method="gdw --eta=1000")
    assert matching.matches(option, a_run(option), "gdw")
    assert not matching.matches(Experiment(dataset="cifar10", method="gdw"), a_run(option), "gdw")


def test_figures_are_read_as_the_papers_are():
    """Mean of the last five epochs in GDW, the best one in RMNW-Net, 95 % intervals in L2RW."""
    rows = [
        {"last": a, "mean_last_5": a + 0.1, "best": a + 0.2, "auc_weight_best": a} for a in (0.5, 0.6)
    ]
    by_source = {e.source: e.reading for e in ENTRIES if e.metric == "test_accuracy"}
    found = {source: published._figure(rows, reading) for source, reading in by_source.items()}
    assert found["mwnet"] == "55.00 ± 7.07"
    assert found["gdw"] == "65.00 ± 7.07"
    assert found["rmnw"] == "75.00 ± 7.07"
    assert found["l2rw"] == "55.00 ± 63.53"  # 12.706 * 7.071 / sqrt(2)
    (auc,) = {e.reading for e in ENTRIES if e.metric == "noise_auc"}
    assert published._figure(rows[:1], auc) == "0.500"
    assert auc.measure == "auc_weight_best"


@pytest.mark.parametrize("shown", paper_figures.SHOWN, ids=lambda s: f"{s.source} {s.name}")
def test_commands_of_figures(shown, monkeypatch):
    """Each can be parsed, or says why there is none."""
    monkeypatch.chdir(ROOT)
    assert shown.source in papers.PAPERS
    assert shown.where
    words = shown.command.split()
    if "tf_mwnet.main" in words:
        config = parse(words[3:])
        assert config.methods
    elif "tf_mwnet.sweep" in words:
        assert (ROOT / words[3].removeprefix("--flagfile=")).is_file()  # read in test_sweep.py


@pytest.mark.slow
def test_our_figure_is_that_of_matching_runs(tmp_path):
    """Two real runs, of other seeds, for a number with their settings; none for other settings."""
    (tmp_path / "configs").mkdir()
    lines = [*SHORT, "--network=mlp", "--dataset=digits", "--noise=flip2"]
    (tmp_path / "configs" / "here.cfg").write_text("\n".join(lines))
    accuracies = []
    for seed in (0, 1):
        folder = tmp_path / f"run{seed}"
        flags = [f"--seed={seed}", "--method=mwnet", "--compare=erm", f"--run_dir={folder}"]
        assert train([*lines, *flags]) == 0
        rows = published.compare.read_run(folder)
        accuracies.append({r["method"]: r for r in rows})
    entry = dataclasses.replace(ENTRIES[0], arguments=("--flagfile=configs/here.cfg",), row="erm")
    same = dataclasses.replace(entry, arguments=(*entry.arguments, "--method=mwnet"), row="mwnet")
    other = dataclasses.replace(same, arguments=(*same.arguments, "--hidden=50"))
    cheaper = dataclasses.replace(same, arguments=(*same.arguments, "--meta_scope=head"))
    rarer = dataclasses.replace(same, arguments=(*same.arguments, "--meta_every=2"))
    elsewhere = dataclasses.replace(entry, arguments=(*entry.arguments, "--noise_rate=0.2"))
    plain = dataclasses.replace(entry, arguments=(*entry.arguments, "--method=mwnet", "--hidden=50"))
    auc = dataclasses.replace(same, metric="noise_auc")
    folders = [tmp_path / "run0", tmp_path / "run1"]
    found = published.figures([entry, same, other, elsewhere, plain, auc], folders, tmp_path)

    def shown(name, key, factor, digits):
        a, b = (factor * run[name][key] for run in accuracies)
        return f"{(a + b) / 2:.{digits}f} ± {abs(a - b) / 2**0.5:.{digits}f}"

    erm, mwnet = shown("erm", "last", 100, 2), shown("mwnet", "last", 100, 2)
    assert published.figures([cheaper, rarer], folders, tmp_path) == ["", ""]
    # The weight net's shape does not matter to plain training.
    assert found == [erm, mwnet, "", "", erm, shown("mwnet", "auc_weight", 1, 3)]


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    nothing = f"--runs={tmp_path}/*"
    line = ["--list", "--source=mwnet", "--table=3", nothing, f"--csv={tmp_path / 'list.csv'}"]
    assert published.main(line) == 0
    out = capsys.readouterr().out
    assert "70 published" not in out
    assert "72 published numbers, each with a command; 0 with a run of ours" in out
    assert "--flagfile=configs/cifar100_flip.cfg --method=glc" in " ".join(out.split())  # it is wrapped
    rows = list(csv.reader((tmp_path / "list.csv").open()))
    assert len(rows) == 73
    lines = out.splitlines()  # each number is followed by its command, on a line of its own
    commands = [row[7].removeprefix(published.COMMAND).strip() for row in rows[1:]]
    places = [i for i, line in enumerate(lines) if line.startswith("    ")]
    assert [lines[i].strip() for i in places] == commands
    assert all(row[4] in lines[i - 1] for row, i in zip(rows[1:], places, strict=True))
    assert published.main([nothing]) == 0
    assert "--list" in capsys.readouterr().out
    assert published.main(["--list", "--table=9", nothing]) == 2
    assert "table '9'; allowed: cmwnet 2, elr code, gdw 7" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", papers.NEEDS)
def test_what_is_needed_is_said(dataset):
    found = [e for e in ENTRIES if e.dataset == dataset]
    assert all(papers.NEEDS[dataset] in e.note for e in found)
    assert all("--data_dir=<folder>" in e.command for e in found)


def test_published_number_of_a_run():
    entry = next(e for e in ENTRIES if (e.source, e.table, e.row) == ("mwnet", "3", "mwnet"))
    config = asked(entry)
    ran = json.loads(config.to_json()) | {"method": entry.row, "meta_size": 1000}
    assert published.of_run(ran, ROOT) == f"{entry.published} (MW-Net 3)"
    assert published.of_run(ran | {"method_options": {"mwnet": {"loss": "focal"}}}, ROOT) == ""
    assert published.of_run(ran | {"epochs": config.epochs + 1}, ROOT) == ""
    assert published.of_run(ran | {"dataset": "digits"}, ROOT) == ""
    assert published.of_run(ran, ROOT / "nowhere") == ""  # installed without the flagfiles
