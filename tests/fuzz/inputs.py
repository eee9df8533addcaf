"""What is wrong to type: values for each kind of flag, command lines, and damage to files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tf_mwnet.config import Experiment

NO_INTEGER = ("x", "1.5", "", " ", "1e3", "nan", "one", "1,2", "--", "'", "10" * 40)
HUGE = ("9" * 20, "-" + "9" * 20, str(2**63))
NO_FLOAT = ("x", "", " ", "1,5", "one", "0.1.2", "nan", "inf", "-inf", "1e999", "'")
NO_BOOL = ("maybe", "2", " ", "truee", "'")
NO_NAME = ("nonsense", " ", "'", "a b c", "--x", "../..", "\x00", "ü" * 300)
NO_NUMBERS = ("a,b", "1.5", "1;2", "-1", "nan", "9" * 20)
# Fields whose values are names from a list, with what "" means elsewhere.
NAMED = (
    "schedule", "meta_optimizer", "meta_schedule", "augment", "cache", "resize_sides", "scaling",
    "blank_images", "meta_labels", "meta_balance", "meta_loss", "precision", "fine_tune_unit",
    "meta_scope", "speed", "strategy", "network", "method", "compare", "noise", "dataset", "backbone",
    "backbone_scaling", "backbone_pooling", "feature_dtype",
)  # fmt: skip
# Fields of numbers where a number below zero means something.
ANY_SIGN: tuple[str, ...] = ()


def of_fields() -> Iterator[tuple[str, str]]:
    """Yields a field of `Experiment` and a value that no run may accept."""
    for field in dataclasses.fields(Experiment):
        if not field.metadata.get("flag", True):
            continue
        kind = str(field.type)
        if kind == "bool":
            values: tuple[str, ...] = NO_BOOL
        elif kind in ("int", "int | None"):
            values = (*NO_INTEGER, *HUGE, "-1")
        elif kind == "float":
            values = (*NO_FLOAT, "-1", "-1e-9")
        elif kind == "tuple[int, ...]":
            values = NO_NUMBERS
        elif field.name in NAMED:
            values = NO_NAME
        else:
            continue
        for value in values:
            yield field.name, value


# A command of `tf-mwnet` and flags that it must refuse, one list a line.
LINES: tuple[tuple[str, ...], ...] = (
    ("train", "surplus"),
    ("train", "--lrr=1"),
    ("train", "--lr"),
    ("train", "--flagfile="),
    ("train", "--flagfile=nowhere.cfg"),
    ("train", "--flagfile=."),
    ("train", "--flagfile=/dev/null/x"),
    ("train", "--flagfile=@nothing"),
    ("train", "--dataset=folder"),
    ("train", "--dataset=folder", "--data_dir=nowhere"),
    ("train", "--dataset=folder", "--data_dir=/dev/null"),
    ("train", "--dataset=npz"),
    ("train", "--dataset=npz", "--data_dir=nowhere.npz"),
    ("train", "--dataset=nowhere.npz"),
    ("train", "--dataset=records", "--data_dir=nowhere"),
    ("train", "--data_dir=nowhere"),
    ("train", "--label_key=fine"),
    ("train", "--resize=8"),
    ("train", "--center_crop=8"),
    ("train", "--cache=disk"),
    ("train", "--noise=nowhere.csv"),
    ("train", "--noise=nowhere.npy"),
    ("train", "--noise_rate=1.01"),
    ("train", "--momentum=1.5"),
    ("train", "--dropout=1.5"),
    ("train", "--test_fraction=0"),
    ("train", "--test_fraction=1"),
    ("train", "--epochs=0"),
    ("train", "--batch_size=0"),
    ("train", "--meta_batch_size=0"),
    ("train", "--meta_every=0"),
    ("train", "--lr=0"),
    ("train", "--imbalance_factor=0.5"),
    ("train", "--imbalance_factor=1e9"),
    ("train", "--class_counts=1,2"),
    ("train", "--class_counts=9,9,9,9,9,9,9,9,9,9", "--imbalance_factor=10"),
    ("train", "--train_size=999999"),
    ("train", "--meta_size=999999"),
    ("train", "--meta_size=0", "--method=mwnet"),
    ("train", "--early_stopping=999999"),
    ("train", "--hidden=0"),
    ("train", "--hidden=-5"),
    ("train", "--classes=3"),
    ("train", "--classes=3,cat"),
    ("train", "--classes=3,3"),
    ("train", "--classes=3,99"),
    ("train", "--background_class=99", "--noise=background"),
    ("train", "--background_class=3"),
    ("train", "--weight_net=nowhere"),
    ("train", "--weight_net=/dev/null"),
    ("train", "--weight_net=@nothing"),
    ("train", "--method=mwnet --eta=3"),
    ("train", "--method=gdw --eta=x"),
    ("train", "--method=gdw --eta=-1"),
    ("train", "--method=gdw --eta=nan"),
    ("train", "--method=gdw --eta='1"),
    ("train", "--method=gdw '"),
    ("train", "--method=mwnet", "--compare=mwnet"),
    ("train", "--method=erm,mwnet"),
    ("train", "--strategy=multiworker"),
    ("train", "--replicas=99", "--strategy=mirrored"),
    ("train", "--resume"),
    ("train", "--overwrite"),
    ("train", "--resume", "--run_dir=nowhere"),
    ("train", "--run_dir=/dev/null"),
    ("train", "--run_dir=/dev/null/x"),
    ("train", "--run_dir=/proc/x"),
    ("train", "--launcher=cron"),
    ("train", "--workers=3"),
    ("train", "--meta_every=10", "--method=l2rw", "--meta_late"),
    ("train", "--then_fine_tune=5", "--meta_size=0", "--method=erm"),
    ("train", "--augment=crop_flip", "--network=mlp", "--scaling=x"),
    ("train", "--dataset=mnist/nowhere"),
    ("train", "--dataset=../etc"),
    ("train", "--dataset=\n"),
    ("train", "--backbone=nonsense"),
    ("train", "--backbone=nowhere/a.keras"),
    ("train", "--backbone=keras_app:Nothing"),
    ("train", "--backbone=keras_hub:"),
    ("train", "--backbone=/dev/null"),
    ("train", "--backbone=os:nothing"),
    ("train", "--backbone=os:getcwd"),
    ("train", "--backbone=:"),
    ("train", "--backbone_size=32"),
    ("train", "--backbone_weights=x"),
    ("train", "--views=3"),
    ("train", "--features=nowhere"),
    ("train", "--features=/dev/null"),
    ("features",),
    ("features", "--dataset=digits"),
    ("features", "--backbone=nonsense"),
    ("features", "--backbone=nonsense", "--epochs=3"),
    ("features", "surplus"),
    ("audit",),
    ("audit", "--worst=0"),
    ("audit", "--worst=x"),
    ("audit", "--run_dir=nowhere"),
    ("audit", "--run_dir=/dev/null"),
    ("audit", "--run_dir=."),
    ("audit", "--dataset=nowhere.npz"),
    ("audit", "--dataset=folder", "--data_dir=nowhere"),
    ("audit", "--dataset=digits", "--cleaned=away", "--write_cleaned=x"),
    ("audit", "--dataset=digits", "--write_cleaned=/dev/null"),
    ("audit", "--dataset=digits", "--write_cleaned=folder"),
    ("report", "--runs=nowhere/*"),
    ("report", "--runs="),
    ("report", "--runs=/dev/null"),
    ("report", "--runs=,,"),
    ("report", "--compare=maybe"),
    ("report", "surplus"),
    ("compare", "--runs=nowhere/*"),
    ("compare", "--runs="),
    ("compare", "--runs=."),
    ("published", "--list", "--source=nobody"),
    ("published", "--list", "--table=99"),
    ("published", "--list=maybe"),
    ("sweep", "--methods=nobody"),
    ("sweep", "--methods=,"),
    ("sweep", "--methods=erm", "--seeds="),
    ("sweep", "--methods=erm", "--seeds=x"),
    ("sweep", "--methods=erm", "--seeds=-1"),
    ("sweep", "--methods=erm", "--seeds=1.5"),
    ("sweep", "--methods=erm", "--seeds=" + "9" * 20),
    ("sweep", "--methods=erm", "--jobs=0"),
    ("sweep", "--methods=erm", "--jobs=x"),
    ("sweep", "--methods=erm", "--engine=cron"),
    ("sweep", "--methods=erm", "--run_cpus=2"),
    ("sweep", "--methods=erm", "--set=lr"),
    ("sweep", "--methods=erm", "--set=lr=x"),
    ("sweep", "--methods=erm", "--set=lrr=1"),
    ("sweep", "--methods=erm", "--set=lr="),
    ("sweep", "--methods=erm", "--setting=x"),
    ("sweep", "--methods=erm", "--setting=a: --lrr=1"),
    ("sweep", "--methods=erm", "--setting=a: --lr='1"),
    ("sweep", "--methods=erm", "--flags='"),
    ("sweep", "--methods=erm", "--flags=--lrr=1"),
    ("sweep", "--methods=erm", "--run_dir=x"),
    ("sweep", "--methods=erm", "--resume"),
    ("sweep", "--methods=erm", "--out=/dev/null"),
    ("sweep", "--methods=erm", "--out=/dev/null/x"),
    ("sweep", "--methods=erm", "--csv=."),
    ("sweep", "--methods=erm", "--csv=/dev/null/x"),
    ("sweep", "--methods=gdw --eta='1"),
    ("sweep", "--flagfile=nowhere.cfg"),
    ("benchmark", "--modes=nothing"),
    ("benchmark", "--rounds=0"),
    ("benchmark", "--rounds=x"),
    ("benchmark", "--steps=-1"),
    ("benchmark", "--network=nothing"),
    ("benchmark", "--batch=0"),
    ("benchmark", "--classes=1"),
    ("benchmark", "--size=1"),
    ("benchmark", "--cache=none"),
    ("benchmark", "--peer=jax"),
    ("benchmark", "--precision=float8"),
    ("benchmark", "--memory_of=nothing"),
    ("benchmark", "--csv=."),
    ("tflite",),
    ("tflite", "--output=x.txt", "--weight_net=nowhere"),
    ("tflite", "--output=x.tflite"),
    ("tflite", "--output=x.tflite", "--weight_net=nowhere"),
    ("tflite", "--output=x.tflite", "--weight_net=@nothing"),
    ("pipeline", "--home=/dev/null"),
    ("pipeline", "--margin=2"),
    ("pipeline", "--margin=nan"),
    ("pipeline", "--confidence=0"),
    ("pipeline", "--min_recall=-1"),
    ("pipeline", "--max_duplicates=x"),
    ("pipeline", "--max_latency_ms=-1"),
    ("pipeline", "--max_latency_ms=nan"),
    ("pipeline", "--trials=0"),
    ("pipeline", "--search=lr"),
    ("pipeline", "--search=lr=x"),
    ("pipeline", "--search=noise=flip"),
    ("pipeline", "--runner=cron"),
    ("pipeline", "--beam=x=1"),
    ("pipeline", "--transfer=nowhere.cfg"),
    ("pipeline", "--name=a/b"),
    ("pipeline", "--name=.."),
    ("pipeline", "--baseline=nobody"),
    ("pipeline", "--run_dir=x"),
    ("pipeline", "--dataset=folder"),
    ("pipeline", "--dataset=folder", "--data_dir=nowhere"),
    ("pipeline", "surplus"),
    ("pipeline-compile", "--output=x.txt"),
    ("pipeline-compile", "--output=x.yaml", "--sweep=nowhere.cfg"),
    ("pipeline-compile", "--output=x.yaml", "--sweep=x", "--method=erm"),
    ("lineage",),
    ("lineage", "nowhere"),
    ("lineage", "nowhere", "--home=/dev/null"),
    ("lineage", "--home=nowhere", "x"),
    ("nothing",),
    ("trian",),
)

# Contents that a file of ours may have after an accident.
DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "list": lambda content: b"[]",
    "object": lambda content: b"{}",
    "null": lambda content: b"null",
    "number": lambda content: b"3",
    "text": lambda content: b"\xff\xfe garbage \x00 garbage",
    "nested": lambda content: b'{"methods": [1, 2], "classes": 3, "noise_rate": "x"}',
    "header": lambda content: content.splitlines(keepends=True)[0] if content else b"",
}
