"""Published numbers: each has a command that can be parsed and means what the table says."""

import csv
import dataclasses
import json

import pytest
from runs import ROOT, SHORT

from tf_mwnet.cli.flags import parse
from tf_mwnet.main import main as train
from tf_mwnet.reports import papers, published

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
    assert len(ENTRIES) == len(numbers) == 592
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
    star = next(e for e in ENTRIES if e.method == "MW-Net*" and e.bias == "flip")
    assert asked(star).meta_labels == "clean"
    moved = next(e for e in ENTRIES if e.method == "Transferred MW-Net" and e.bias == "flip2")
    assert asked(moved).weight_net.startswith("runs/cifar10_flip")


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
    assert "--flagfile=configs/cifar100_flip.cfg --method=glc" in out
    rows = list(csv.reader((tmp_path / "list.csv").open()))
    assert len(rows) == 73
    assert published.main([nothing]) == 0
    assert "--list" in capsys.readouterr().out
    assert published.main(["--list", "--table=9", nothing]) == 2
    assert "table '9'; allowed: gdw 7" in capsys.readouterr().err


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
    assert published.of_run(ran | {"epochs": config.epochs + 1}, ROOT) == ""
    assert published.of_run(ran | {"dataset": "digits"}, ROOT) == ""
    assert published.of_run(ran, ROOT / "nowhere") == ""  # installed without the flagfiles
