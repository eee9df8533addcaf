"""Texts: tables and folders of them, embedded by a text backbone of Keras Hub."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tf_mwnet
from pipelines.work import statistics
from tf_mwnet import Experiment, data, features
from tf_mwnet.audit import __main__ as audit
from tf_mwnet.audit import cleaned, outputs
from tf_mwnet.audit.examine import examine
from tf_mwnet.data import texts
from tf_mwnet.errors import UserError
from tf_mwnet.export import serving
from tf_mwnet.features import __main__ as embed_command

WORDS = {"sport": ["ball", "goal", "team", "win"], "food": ["bread", "soup", "salt", "oven"]}
TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "and",
    *WORDS["sport"],
    *WORDS["food"],
]


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> str:
    """A small BERT with random weights, as a folder."""
    hub = pytest.importorskip("keras_hub")
    folder = str(tmp_path_factory.mktemp("preset") / "bert")
    tf.keras.utils.set_random_seed(0)
    backbone = hub.models.BertBackbone(
        vocabulary_size=len(TOKENS), num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=16,
        max_sequence_length=24,
    )  # fmt: skip
    embedding = backbone.get_layer("token_embedding")
    embedding.embeddings.assign(embedding.embeddings * 50)  # so that words differ
    tokenizer = hub.models.BertTokenizer(vocabulary=TOKENS, lowercase=True)
    backbone.save_to_preset(folder)
    hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=24).save_to_preset(folder)
    return f"keras_hub:{folder}"


def table(count: int = 80, test: int = 20, seed: int = 0) -> pd.DataFrame:
    """Sentences of two classes, a tenth of the training labels wrong; the same each time."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count + test):
        name = ("sport", "food")[i % 2]
        words = rng.choice(["the", "a", "and", *WORDS[name] * 3], rng.integers(4, 12))
        wrong = i < count and i % 10 == 3
        given = ("food", "sport")[i % 2] if wrong else name
        split = "train" if i < count else "test"
        rows.append({"text": f"{' '.join(words)} {i}", "label": given, "true": name, "split": split})
    return pd.DataFrame(rows)


@pytest.fixture
def csv(tmp_path) -> str:
    path = str(tmp_path / "news.csv")
    table().to_csv(path, index=False)
    return path


def test_a_table(csv, tmp_path):
    source = data.load(csv, clean_label_key="true")
    assert source.class_names == ("food", "sport")
    assert (len(source.train), len(source.test), source.truth_known) == (80, 20, True)
    assert (source.train.y != source.train.true_y).sum() == 8
    assert (source.test.y == source.test.true_y).all()
    frame = pd.read_csv(csv)
    assert source.train.x.read(np.array([3])).tolist() == [frame.text[3]]
    frame[frame.split == "train"].drop(columns="split").to_csv(
        tmp_path / "train.tsv", sep="\t", index=False
    )
    other = data.load("csv", str(tmp_path), text_column="text")
    assert other.test is None
    assert other.train.x.fingerprint() == source.train.x.fingerprint()
    assert source.train.take(np.array([1, 0])).x.fingerprint() != source.train.x.fingerprint()


def test_class_numbers_are_sorted_as_numbers(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["10", "9", "2"], "id": ["x", "007", "y"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    source = data.load(str(tmp_path / "t.csv"))
    assert source.class_names == ("2", "9", "10")
    assert source.train.y.tolist() == [2, 1, 0]
    assert source.train.ids.tolist() == ["x", "007", "y"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na,b\n,c\n", {}, "text of row 2 is empty \\(1 are\\); allowed: a text and a label"),
        ("text,label\na,b\nc,\n", {}, "label of row 2 is empty"),
        ("words,label\na,b\n", {}, "no column 'text'; allowed: --text_column=<one of words, label>"),
        ("text,class\na,b\n", {}, "no column 'label'; allowed: --label_key=<one of text, class>"),
        ("text,label\n", {}, "has no rows"),
        ("", {}, "cannot be read .*; allowed: a table in UTF-8 with a header"),
        ("text,label\na,b\n", {}, "1 class; allowed: two or more"),
        (
            "text,label,split\na,b,train\nc,d,dev\n",
            {},
            "has the split 'dev'; allowed: train, test, meta",
        ),
        (
            "text,label,split\na,b,train\nb,d,train\nc,e,test\n",
            {},
            "test has the class 'e'; allowed: b, d",
        ),
        ("text,label,id\na,b,1\nc,d,1\n", {}, "the id '1' is there 2 times"),
        (b"text,label\n\xff\xfe,b\n", {}, "cannot be read"),
        ("text,label\na,b\nc,d\n", {"text_column": "x"}, "has no column 'x'"),
    ],
)
def test_tables_that_are_refused(content, options, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        data.load(str(path), **options)


def write_folder(folder, count: int = 30) -> None:
    for seed, split in enumerate(("train", "test")):
        frame = table(count, 0, seed)
        for i, row in frame.iterrows():
            path = folder / split / row.label / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row.text)


def test_a_folder(tmp_path, caplog):
    write_folder(tmp_path)
    (tmp_path / "train" / "food" / "notes.pdf").write_text("x")
    source = data.load("folder", str(tmp_path))
    assert isinstance(source.train.x, texts.Texts)
    assert len(source.train) == len(source.test) == 30
    assert source.train.ids[0].startswith("train/food/")
    assert "1 files are left out, which are no texts" in caplog.text
    (tmp_path / "train" / "food" / "empty.txt").write_text(" ")
    with pytest.raises(UserError, match=r"empty.txt' is empty"):
        data.load("folder", str(tmp_path))
    (tmp_path / "train" / "food" / "empty.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"empty.txt' cannot be read .*allowed: UTF-8"):
        data.load("folder", str(tmp_path))


def test_records_and_their_statistics(csv, tmp_path):
    source = data.load(csv, clean_label_key="true")
    data.records.write(source, tmp_path / "records")
    again = data.load("records", str(tmp_path / "records"))
    assert again.train.x.fingerprint() == source.train.x.fingerprint()
    assert (again.train.true_y == source.train.true_y).all()
    ((split, path),) = [
        place for place in statistics.shards(tmp_path / "records") if place[0] == "train"
    ]
    part, digests = statistics.of_shard(tmp_path / "records", split, path)
    lengths = [len(text) for text in source.train.x.values]
    assert (part.mean.tolist(), part.low.tolist()) == ([pytest.approx(np.mean(lengths))], [min(lengths)])
    assert len({digest for digest, *_ in digests}) == 80


def test_padding_has_no_part_in_the_mean(preset):
    short, long = (features.load(preset, size) for size in (8, 24))
    words = tf.constant(["ball goal", "soup"])
    np.testing.assert_allclose(short(words), long(words), atol=1e-5)
    assert short.fingerprint != long.fingerprint
    tokens = long.prepared(words)
    outputs, kept = long.network.apply(tokens)
    by_hand = [outputs[i].numpy()[kept[i].numpy()].mean(axis=0) for i in range(2)]
    np.testing.assert_allclose(long(words), by_hand, atol=1e-5)
    largest = features.load(preset, pooling="max")(words)
    by_hand = [outputs[i].numpy()[kept[i].numpy()].max(axis=0) for i in range(2)]
    np.testing.assert_allclose(largest, by_hand, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "views is 2 with '.*' of texts; allowed: 1"),
        ({"size": 99}, "backbone_size is 99 with preset '.*'; allowed: 1 to 24 tokens"),
    ],
)
def test_options_of_text_backbones(options, message, preset):
    with pytest.raises(UserError, match=message):
        features.load(preset, **options)


def test_inputs_of_another_kind(csv, preset, tmp_path):
    body = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), tf.keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(UserError, match=r"texts with backbone '.*' of images; allowed: one of texts"):
        features.embed(data.load(csv), features.load(body), "")
    with pytest.raises(UserError, match=r"images with backbone '.*' of texts; allowed: one of images"):
        features.embed(data.load("digits"), features.load(preset), "")
    with pytest.raises(UserError, match="inputs are texts; allowed: with --backbone=keras_hub:<text"):
        tf_mwnet.run(Experiment(dataset=csv, run_dir=tmp_path / "run"))
    config = Experiment(
        dataset=csv, backbone=preset, meta_size=10, then_unfreeze=1, run_dir=tmp_path / "run"
    )
    with pytest.raises(UserError, match="then_unfreeze is 1 with texts; allowed: with images"):
        tf_mwnet.run(config)


@pytest.mark.slow
def test_a_run_and_its_export(preset, tmp_path):
    csv = str(tmp_path / "more.csv")
    table(400).to_csv(csv, index=False)
    config = Experiment(
        dataset=csv, clean_label_key="true", backbone=preset, features=str(tmp_path / "f"),
        method="mwnet", compare="erm", meta_size=10, batch_size=20, run_dir=tmp_path / "run",
        **features.SETTINGS,
    )  # fmt: skip
    result = tf_mwnet.run(config)
    assert result.methods["mwnet"]["last"] > 0.9
    path = tmp_path / "run" / "mwnet" / "saved_models" / "classifier" / "1"
    served = tf.saved_model.load(str(path))
    words = result.splits.test.raw.read(np.arange(20))
    answer = served.signatures["serving_default"](text=tf.constant(words.tolist()))["probabilities"]
    again = served.signatures["from_features"](features=tf.constant(result.splits.test.x))
    np.testing.assert_allclose(answer, again["probabilities"], atol=1e-5)
    checked = serving.check(path, words)
    assert (checked["input"], checked["problems"]) == ("text", [])
    accuracy = float((answer.numpy().argmax(axis=1) == result.splits.test.y).mean())
    assert accuracy == pytest.approx(result.methods["mwnet"]["last"], abs=1e-6)


def test_an_audit_and_its_cleaned_table(csv, preset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # texts are not wrapped
    line = [f"--dataset={csv}", f"--backbone={preset}", f"--features={tmp_path / 'f'}",
            "--batch_size=20", f"--run_dir={tmp_path / 'run'}"]  # fmt: skip
    assert audit.main([*line, f"--write_cleaned={tmp_path / 'clean.npz'}"]) == 2
    assert "for a table of texts; allowed: a path that ends in .csv or .tsv" in capsys.readouterr().err
    assert audit.main([*line, f"--write_cleaned={tmp_path / 'clean.csv'}"]) == 0
    shown = capsys.readouterr().out
    found = examine(tmp_path / "run")
    issues = outputs.read_label_issues(outputs.folder_of(found.folder, found.method))
    frame = pd.read_csv(csv)
    flagged = set(issues.text[issues.is_label_issue])
    assert issues.text[0] in shown
    wrong = set(frame.text[frame.label != frame.true])
    assert len(flagged & wrong) >= 6
    assert len(flagged - wrong) <= 4
    clean = data.load(str(tmp_path / "clean.csv"))
    train = issues[issues.set == "train"]
    assert set(clean.train.x.values) == set(train.text[~train.is_label_issue])
    assert len(clean.test) == 20


@pytest.mark.slow
def test_records_are_cleaned_into_a_table(csv, preset, tmp_path):
    data.records.write(data.load(csv, clean_label_key="true"), tmp_path / "records")
    config = Experiment(
        dataset="records", data_dir=str(tmp_path / "records"), backbone=preset,
        method="gce", meta_size=0, batch_size=20, run_dir=tmp_path / "run",
        features=str(tmp_path / "f"), **features.SETTINGS,
    )  # fmt: skip
    found = examine(tf_mwnet.run(config))
    with pytest.raises(UserError, match=r"for a table of texts; allowed: a path that ends in \.csv"):
        cleaned.write(found, tmp_path / "clean.npz")
    size = cleaned.write(found, tmp_path / "clean.tsv")
    assert size == len(data.load(str(tmp_path / "clean.tsv")).train)


def test_a_folder_is_cleaned_into_a_folder(preset, tmp_path):
    write_folder(tmp_path / "news", 40)
    config = Experiment(
        dataset="folder", data_dir=str(tmp_path / "news"), backbone=preset, method="gce",
        batch_size=20, run_dir=tmp_path / "run", features=str(tmp_path / "f"), **features.SETTINGS,
    )  # fmt: skip
    found = examine(tf_mwnet.run(config))
    with pytest.raises(UserError, match="for a folder of texts; allowed: a new folder"):
        cleaned.write(found, tmp_path / "clean.npz")
    size = cleaned.write(found, tmp_path / "clean", "relabel")
    clean = data.load("folder", str(tmp_path / "clean"))
    assert len(clean.train) == size == 40
    moved = [i for i in clean.train.ids if "food" in i and "sport" in i]
    assert len(moved) == found.table.is_label_issue[found.table.set == "train"].sum()


def test_the_command(csv, preset, tmp_path, capsys):
    line = [f"--dataset={csv}", f"--backbone={preset}", f"--features={tmp_path / 'f'}"]
    assert embed_command.main([*line, "--label_key=true"]) == 0
    assert "(24 tokens, own, pooling mean)" in capsys.readouterr().out
    assert embed_command.main(["--dataset=digits", "--text_column=x", f"--backbone={preset}"]) == 2
    assert "text_column is 'x' with dataset 'digits'" in capsys.readouterr().err
