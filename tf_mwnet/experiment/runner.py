"""A run from start to end: data, training of each method, files, exports, pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from tf_mwnet import methods, strategies
from tf_mwnet.config import Experiment
from tf_mwnet.data.sources import MEMORY
from tf_mwnet.errors import (
    Interrupted,
    NotANumber,
    UserError,
    WorkerLost,
    check_signals,
    quoted,
    signals_noted,
)
from tf_mwnet.experiment import build, training, unfreezing
from tf_mwnet.experiment.later import Trained
from tf_mwnet.experiment.resolve import load, log_method
from tf_mwnet.export.saved_models import export_classifier, export_weight_net, model_card
from tf_mwnet.figures import pictures, plots, run_data, tables, tensorboard
from tf_mwnet.files import write_atomically
from tf_mwnet.model import classifier_head, compiling, copies, example_record, meta_scope, mixing
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.runs import run_folder, saved_run
from tf_mwnet.types import Source, Splits


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        run_dir: the folder with all files.
        config: the resolved configuration.
        methods: name -> summary, see `figures.tables.summary`, with the "seconds" of this call.
        noise_rate: realised share of wrong labels in the training set, 0 to 1; None if unknown.
        classifiers: name -> trained classifier.
        source: the data as it was loaded.
        splits: the training, meta, test and validation sets made of it.
        chief: whether this process wrote the files; False on all but one of several workers.

    Examples:
        >>> result = tf_mwnet.run(tf_mwnet.Experiment(epochs=5))
        >>> result.methods["mwnet"]["last"]
    """

    run_dir: pathlib.Path
    config: Experiment
    methods: dict[str, dict[str, Any]]
    noise_rate: float | None
    classifiers: dict[str, keras.Model]
    source: Source
    splits: Splits
    chief: bool = True


def run(
    config: Experiment,
    source: Source | None = None,
    classifier: build.Maker | None = None,
) -> Result:
    """Runs an experiment.

    Args:
        config: the settings.
        source: data in memory (see `data.from_arrays`) instead of ``config.dataset``.
        classifier: a function from the data's spec to a fresh, built classifier, instead of
            ``config.network``. It is called several times, each time after
            `keras.utils.set_random_seed`, so that initial values are the same.

    Returns:
        The result, on each of several workers.

    Raises:
        UserError: something in the configuration, the data or the run folder does not fit. Nothing
            has been written or removed then.
        NotANumber: the loss is no longer finite.
        Interrupted: SIGINT or SIGTERM came; whole epochs are saved.
        WorkerLost: another worker ended; whole epochs are saved.

    Examples:
        >>> config = tf_mwnet.Experiment(method="mwnet", compare="erm", epochs=5)
        >>> result = tf_mwnet.run(config)
    """
    before = keras.config.dtype_policy()
    if not tf.distribute.has_strategy():  # clearing would end the caller's scope
        keras.backend.clear_session()  # frees what an earlier run in this process has left
    keras.config.set_dtype_policy(before)
    strategy = strategies.make(config.strategy, config.replicas)
    chief = strategies.is_chief(strategy)
    if source is not None and source.in_memory:
        config = dataclasses.replace(config, dataset=f"{MEMORY}{source.name}")
    given = config
    folder = run_folder.check(config) if chief else pathlib.Path(config.run_dir)
    config, source, splits = load(config, source)
    keras.config.set_dtype_policy(config.precision)
    try:
        replicas = strategy.num_replicas_in_sync
        build.check_sizes(config, splits, replicas)
        _check_parts(config, splits, classifier, replicas)
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals_noted())
            if chief:
                folder = stack.enter_context(run_folder.claimed(folder, given))
            config = dataclasses.replace(config, run_dir=str(folder))
            if given.method == "auto" and not given.weight_net:
                log_method(config, source)
            if chief:
                run_folder.prepare(folder, config, splits)
            with strategies.watched(strategy):
                strategies.everyone(strategy, 0)
            return _run(config, source, splits, folder, classifier, strategy)
    except Interrupted as error:
        hint = f"whole epochs are saved; go on with --resume --run_dir={folder}"
        raise Interrupted(error.signal, f"{error}; {hint}") from None
    except NotANumber as error:
        saved = any(folder.rglob("checkpoints/epoch-*.index"))
        kept = f"the checkpoint of the last whole epoch is kept in {folder}"
        raise NotANumber(f"{error}; {kept if saved else 'no epoch was finished'}") from None
    except WorkerLost as error:
        hint = f"start all workers again with --resume --run_dir={folder}"
        raise WorkerLost(f"{error}; whole epochs are saved; {hint}") from error
    except Exception as error:
        if folder.is_dir() and not isinstance(error, UserError | OSError):
            error.run_dir = folder  # type: ignore[attr-defined]  # for its traceback
        raise
    finally:
        keras.config.set_dtype_policy(before)


def _check_parts(
    config: Experiment, splits: Splits, classifier: build.Maker | None, replicas: int
) -> None:
    """Builds everything once, so that what does not fit is found before any file is touched."""
    make = build.classifier_maker(config, classifier)
    network = make(splits.spec)
    if make(splits.spec) is network:
        raise UserError(
            f"classifier gave the model '{network.name}' twice; allowed: a function that makes a new one"
        )
    head = classifier_head.inspect(network, from_logits=True)
    meta_scope.indexes(network, config.meta_scope)
    if classifier is not None:
        _check_copies(config, splits, network)
    if config.then_fine_tune and splits.meta is None:
        raise UserError(
            f"then_fine_tune is {config.then_fine_tune} without a meta set; allowed: meta_size 1 and"
            " above, and no weight_net"
        )
    if config.then_unfreeze:
        unfreezing.check(config, splits)
    for name in config.methods:
        _check_meta_set(config, splits, name)
        if not build.first_stage(config, name):
            method = build.make_method(config, name, splits, make)
            method.prepare(head)
            build.check_draws(method, splits, replicas)
            cheaper = build.cheaper(config, method)
            compiling.check_velocity(method.look_ahead, build.make_optimizers(config, name)[0])
            meta_scope.check_turns(method, cheaper["meta_every"], cheaper["meta_start"])
            meta_scope.check_ema(method, cheaper["meta_ema"])
            meta_scope.check_late(method, cheaper["meta_late"], cheaper["meta_scope"])
            mixing.check_smoothing(method, config.label_smoothing)


def _check_copies(config: Experiment, splits: Splits, network: keras.Model) -> None:
    """Copies a user's classifier, where something would after the training."""
    later = config.ema or config.then_fine_tune or config.then_unfreeze or splits.validation is not None
    if later or any(methods.METHODS[name].continues for name in config.methods):
        copies.copied(network)
    if config.post_hoc_logit_adjustment and not getattr(network, "inputs", None):
        raise UserError(
            f"post_hoc_logit_adjustment is {config.post_hoc_logit_adjustment} with classifier"
            f" '{network.name}', whose inputs are not known; allowed: a Sequential or functional model"
        )


def _check_meta_set(config: Experiment, splits: Splits, name: str) -> None:
    kind = methods.METHODS[name]
    if build.is_frozen(config, name):
        return
    if config.weight_net and (kind.needs_meta or kind.draws_meta):
        raise UserError(
            f"weight_net is set, for which there is no meta set, with method '{name}'; allowed: mwnet"
        )
    if kind.needs_meta and splits.meta is None:
        raise UserError(f"method '{name}' needs a meta set and meta_size is 0; allowed: 1 and above")


def _run(
    config: Experiment,
    source: Source,
    splits: Splits,
    folder: pathlib.Path,
    classifier: build.Maker | None,
    strategy: tf.distribute.Strategy,
) -> Result:
    chief = strategies.is_chief(strategy)
    noise_rate = float(splits.corrupted.mean()) if splits.truth_known else None
    logging.info("run folder: %s", folder)
    _log_data(splits, noise_rate)
    late = [drop for drop in config.lr_drops if drop >= config.epochs]
    if late and config.schedule == "step":
        logging.info("no drop of lr after epoch %s: there are %d epochs", quoted(late), config.epochs)
    make = build.classifier_maker(config, classifier)
    summaries: dict[str, dict[str, Any]] = {}
    classifiers: dict[str, keras.Model] = {}
    for name in config.methods:
        check_signals()
        start = time.perf_counter()
        model = training.train_method(config, splits, name, folder / name, make, strategy)
        check_signals()
        path = folder / name / "metrics.csv"
        if not (rows := saved_run.read_metrics(path)):
            raise UserError(
                f"'{path}' is not there or empty; allowed: as the run wrote it, or --overwrite"
            )
        summary = tables.summary(rows)
        summary["seconds"] = time.perf_counter() - start
        final = model.final_classifier()
        if chief:
            _export(config, splits, name, folder, model, final, summary)
            predictions = folder / name / run_data.PREDICTIONS
            training.keep_predictions(final, splits, predictions)
        summaries[name], classifiers[name] = summary, final
        trained = Trained(config, splits, name, folder / name, model, strategy)
        for later, later_summary, later_classifier in trained.stages():
            summaries[later], classifiers[later] = later_summary, later_classifier
    check_signals()
    if chief:
        _write_results(config, folder, summaries, noise_rate, strategy.num_replicas_in_sync)
    with strategies.watched(strategy):
        strategies.everyone(strategy, 0)  # a worker that ends early takes the others with it
    return Result(folder, config, summaries, noise_rate, classifiers, source, splits, chief)


def _export(
    config: Experiment,
    splits: Splits,
    name: str,
    folder: pathlib.Path,
    model: ReweightedModel,
    classifier: keras.Model,
    summary: dict[str, Any],
) -> None:
    """Exports a method's classifier, and its weight net if it has one."""
    seen = example_record.columns(model.record)["loss"]
    method = model.method
    # The card says what the method did: a frozen function ignores these flags.
    used = {
        "method": name,
        "normalise": getattr(method, "normalise", None),
        "meta_lr": config.meta_lr or method.meta_lr,
    }
    settings = dataclasses.asdict(config) | used
    parts = {"classifier": classifier}
    if isinstance(method, methods.MWNet):
        parts["weight_net"] = method.weight_net
    for what, part in parts.items():
        path = saved_run.exported(folder, name, what)
        if path.exists():  # a run that was cut off after this export
            continue
        card = model_card(settings, splits.spec, summary, seen, what, method.group_of_class)
        if what == "classifier":
            export_classifier(part, splits.spec, path, card)
        else:
            export_weight_net(part, path, card, saved_run.weight_course(folder / name / "examples"))


def _write_results(
    config: Experiment,
    folder: pathlib.Path,
    summaries: dict[str, dict[str, Any]],
    noise_rate: float | None,
    replicas: int,
) -> None:
    """Writes the results, which mark the run as finished, and then draws the pictures."""
    content = {"methods": summaries, "noise_rate": noise_rate, "replicas": replicas}
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(folder / saved_run.RESULT, lambda file: file.write(text), mode="w")
    with plots.not_fatal(f"pictures of {folder}"):
        data = run_data.read(folder)
        what = tables.ACCURACY if data.test_checked else tables.AGREEMENT
        tensorboard.write_end(folder / "tensorboard", config, summaries, pictures.draw_run(data), what)


def _log_data(splits: Splits, noise_rate: float | None) -> None:
    sizes = [len(splits.train), 0 if splits.meta is None else len(splits.meta), len(splits.test)]
    logging.info("%s: %d training, %d meta, %d test examples", splits.spec.name, *sizes)
    if noise_rate is not None:
        logging.info("realised noise rate: %.1f %% of the training labels", 100 * noise_rate)
    if sizes[1] > sizes[0]:
        logging.warning("the meta set has %d examples, more than the %d to train on", *sizes[1::-1])
