"""A run from start to end: data, training of each method, files, exports, pictures."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
from absl import logging

from tf_mwnet import methods, run_folder, strategies
from tf_mwnet.config import Experiment
from tf_mwnet.errors import Interrupted, NotANumber, UserError, WorkerLost
from tf_mwnet.experiment import build, training
from tf_mwnet.experiment.resolve import load
from tf_mwnet.export.saved_models import export_classifier, export_weight_net, model_card
from tf_mwnet.figures import pictures, run_data, tables, tensorboard
from tf_mwnet.files import write_atomically
from tf_mwnet.model import classifier_head, example_record, meta_scope
from tf_mwnet.types import DataSpec, Source, Splits


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
        run_dir: the folder with everything.
        config: the resolved configuration.
        methods: name -> summary, see `figures.tables.summary`, with the "seconds" of this call.
        noise_rate: realised share of wrong labels in the training set, or None where unknown.
        classifiers: name -> trained classifier.
        source: the data as it was found.
        splits: what was made of it.
    """

    run_dir: pathlib.Path
    config: Experiment
    methods: dict[str, dict[str, Any]]
    noise_rate: float | None
    classifiers: dict[str, keras.Model]
    source: Source
    splits: Splits


def _export(config, splits, name, folder, model, summary) -> None:
    seen = example_record.columns(model.record)["loss"]
    # What the method did, which may not be what the flag says: a frozen function has its own.
    method = model.method
    did = {
        "method": name,
        "normalise": getattr(method, "normalise", None),
        "meta_lr": config.meta_lr or method.meta_lr,
    }
    settings = dataclasses.asdict(config) | did
    exported = [("classifier", model.classifier)]
    if isinstance(method, methods.MWNet):
        exported.append(("weight_net", method.weight_net))
    for what, part in exported:
        path = run_folder.exported(folder, name, what)
        if path.exists():  # a run that was cut off after this export
            continue
        card = model_card(settings, splits.spec, summary, seen, what, method.group_of_class)
        if what == "classifier":
            export_classifier(part, splits.spec, path, card)
        else:
            export_weight_net(part, path, card, run_folder.weight_course(folder / name / "examples"))


# -------------------------------------------------------------------- the whole


def run(
    config: Experiment,
    source: Source | None = None,
    classifier: Callable[[DataSpec], keras.Model] | None = None,
) -> Result | None:
    """Runs an experiment; gives None to the workers that are not the chief.

    Args:
        config: what to do.
        source: data in memory (see `data.from_arrays`) in place of ``config.dataset``.
        classifier: makes a fresh, built classifier from the data's spec, in place of
            ``config.network``; called several times, after `keras.utils.set_random_seed`, so that
            initial values are the same each time.

    Raises:
        UserError: something in the configuration, the data or the run folder does not fit. Nothing
            has been written or removed then.
        NotANumber, Interrupted, WorkerLost: see `train`.
    """
    strategy = strategies.make(config.strategy, config.replicas)
    chief = strategies.is_chief(strategy)
    folder = run_folder.check(config) if chief else pathlib.Path(config.run_dir)
    config, source, splits = load(config, source)
    config = dataclasses.replace(config, run_dir=str(folder))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        build.check_sizes(config, splits, strategy.num_replicas_in_sync)
        _check_parts(config, splits, classifier)
        if chief:
            run_folder.prepare(folder, config, splits)
        with strategies.watched(strategy):
            strategies.everyone(strategy, 0)
        return _run(config, source, splits, folder, classifier, strategy)
    except Interrupted as error:
        hint = f"whole epochs are saved; go on with --resume --run_dir={folder}"
        raise Interrupted(error.signal, f"{error}; {hint}") from None
    except NotANumber as error:
        kept = f"the checkpoint of the last whole epoch is kept in {folder}"
        raise NotANumber(f"{error}; {kept}") from None
    except WorkerLost as error:
        hint = f"start all workers again with --resume --run_dir={folder}"
        raise WorkerLost(f"{error}; whole epochs are saved; {hint}") from error
    finally:
        keras.config.set_dtype_policy(before)


def _check_parts(config, splits, classifier) -> None:
    """Builds everything once, so that what does not fit is found before files are touched."""
    make = build.classifier_maker(config, classifier)
    network = make(splits.spec)
    if make(splits.spec) is network:
        raise UserError(
            f"classifier gave the model '{network.name}' twice; allowed: a function that makes a new one"
        )
    head = classifier_head.inspect(network, from_logits=True)
    meta_scope.indexes(network, config.meta_scope)
    for name in config.methods:
        if not build.first_stage(config, name):
            method = build.make_method(config, name, splits, make)
            method.prepare(head)
            cheaper = build.cheaper(config, method)
            meta_scope.check_every(method, cheaper["meta_every"])
            meta_scope.check_late(method, cheaper["meta_late"], cheaper["meta_scope"])
        if config.then_fine_tune and splits.meta is None:
            raise UserError(
                f"then_fine_tune is {config.then_fine_tune} without a meta set; allowed: meta_size 1 and"
                " above, and no weight_net"
            )
        if not methods.METHODS[name].needs_meta or build.is_frozen(config, name):
            continue
        if config.weight_net:
            raise UserError(
                f"weight_net is set, for which there is no meta set, with method '{name}'; allowed:"
                " mwnet"
            )
        if splits.meta is None:
            raise UserError(f"method '{name}' needs a meta set and meta_size is 0; allowed: 1 and above")


def _run(config, source, splits, folder, classifier, strategy) -> Result | None:
    chief = strategies.is_chief(strategy)
    noise_rate = float(splits.corrupted.mean()) if splits.truth_known else None
    logging.info("run folder: %s", folder)
    _log_data(splits, noise_rate)
    make = build.classifier_maker(config, classifier)
    summaries, trained = {}, {}
    for name in config.methods:
        start = time.perf_counter()
        model = training.train_method(config, splits, name, folder / name, make, strategy)
        summary = tables.summary(run_folder.read_metrics(folder / name / "metrics.csv"))
        summary["seconds"] = time.perf_counter() - start
        if chief:
            _export(config, splits, name, folder, model, summary)
            predictions = folder / name / run_data.PREDICTIONS
            training.keep_predictions(model.classifier, splits, predictions)
        summaries[name], trained[name] = summary, model.classifier
        afterwards = _afterwards(config, splits, name, folder / name, model.classifier, strategy)
        for later, found in afterwards:
            summaries[later], trained[later] = found
    if chief:
        drawn = pictures.draw_run(run_data.read(folder))
        tensorboard.write_end(folder / "tensorboard", config, summaries, drawn)
        count = strategy.num_replicas_in_sync
        content = {"methods": summaries, "noise_rate": noise_rate, "replicas": count}
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(folder / run_folder.RESULT, lambda file: file.write(text), mode="w")
    with strategies.watched(strategy):
        strategies.everyone(strategy, 0)  # a worker that ends early takes the others with it
    if not chief:
        return None
    return Result(folder, config, summaries, noise_rate, trained, source, splits)


def _afterwards(config, splits, name, folder, classifier, strategy):
    """Early stopping and fine-tuning: pairs of a name and ``(summary, classifier)``."""
    rows = run_folder.read_metrics(folder / "metrics.csv")
    if splits.validation is not None:
        name = f"{name}+ES"
        classifier, epoch = training.best_classifier(classifier, folder)
        yield name, (tables.at_epoch(rows, epoch), classifier)
    if config.then_fine_tune:
        start, folder, name = time.perf_counter(), folder / "fine_tuned", f"{name}+FT"
        model = training.fine_tune(config, splits, folder, classifier, strategy)
        summary = tables.summary(run_folder.read_metrics(folder / "metrics.csv"))
        summary["seconds"] = time.perf_counter() - start
        yield name, (summary, model.classifier)


def _log_data(splits: Splits, noise_rate: float | None) -> None:
    sizes = [len(splits.train), 0 if splits.meta is None else len(splits.meta), len(splits.test)]
    logging.info("%s: %d training, %d meta, %d test examples", splits.spec.name, *sizes)
    if noise_rate is not None:
        logging.info("realised noise rate: %.1f %% of the training labels", 100 * noise_rate)
