"""The modes of training that the benchmark times, and their common setting."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import data, methods, networks, optimizers, strategies
from tf_mwnet.benchmark import naive
from tf_mwnet.config import Experiment
from tf_mwnet.data import shares
from tf_mwnet.experiment import build
from tf_mwnet.model import meta_scope, train_step
from tf_mwnet.model.reweighted import ReweightedModel
from tf_mwnet.types import Batch, DataSpec, Outputs

ABOUT = {
    "network": f"one of {', '.join(networks.NETWORKS)}",
    "batch": "training examples in a step",
    "size": "height and width of the images, which have 3 channels",
    "features": "numbers of a feature vector, for networks on features; 0 for images",
    "classes": "number of classes",
    "precision": "float32, mixed_bfloat16 or mixed_float16",
    "jit_compile": "compile the step with XLA",
    "strategy": f"one of {', '.join(strategies.STRATEGIES)}; batch is the batch of all replicas",
    "replicas": "replicas of mirrored",
}


@dataclasses.dataclass(frozen=True)
class Mode:
    """A mode of training.

    Examples:
        >>> MODES["late_m25"]
        Mode(method='mwnet', meta_batch=0.25, naive=False, scope='all', learning=1.0, late=True,
             ema=0.0, about='both')

    Attributes:
        method: name of the method.
        meta_batch: size of the meta batch as a share of the batch.
        naive: whether to use the step of `tf_mwnet.benchmark.naive`.
        scope: parameters that the virtual step moves.
        learning: share of the steps in which the weight net learns, above 0.
        late: whether the weight net's step comes one step late.
        ema: momentum of the average of the meta loss's gradient.
        about: description for --help.
    """

    method: str
    meta_batch: float = 1.0
    naive: bool = False
    scope: str = "all"
    learning: float = 1.0
    late: bool = False
    ema: float = 0.0
    about: str = ""


MODES = {
    "plain": Mode("erm", about="plain training"),
    "naive": Mode("mwnet", naive=True, about="MW-Net with nested tapes, nothing shared"),
    "exact": Mode("mwnet", about="MW-Net"),
    "late": Mode("mwnet", late=True, about="MW-Net, the weight net's step one step late"),
    "exact_m25": Mode("mwnet", 0.25, about="MW-Net, a quarter of the meta batch"),
    "late_m25": Mode("mwnet", 0.25, late=True, about="both"),
    "last_stage_m25": Mode("mwnet", 0.25, scope="last_stage", about="and with the last stage alone"),
    "head_m25": Mode("mwnet", 0.25, scope="head", about="and with the last layer alone"),
    "fast": Mode(
        "mwnet",
        meta_scope.FAST["meta_batch_size"] / 100,
        learning=meta_scope.fast_share(),
        late=bool(meta_scope.FAST["meta_late"]),
        ema=meta_scope.FAST["meta_ema"],
        about="--speed=fast, the mean over a whole training with its start",
    ),
    "l2rw": Mode("l2rw", about="L2RW"),
    "gdw": Mode("gdw", about="GDW"),
}
# An exact step of each method, under its name. Those that change in a training are in the middle of it.
METHODS = {name: Mode(name) for name in methods.METHODS if name != "erm"}  # which is plain
AMID = 50, 100  # epoch, and epochs in all


def mode_of(name: str) -> Mode:
    """Returns the mode of a name in `MODES` or `METHODS`."""
    return MODES.get(name) or METHODS[name]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The setting of all modes. `ABOUT` describes the fields.

    Examples:
        >>> Setting(network="small_cnn", size=8).spec.shape
        (8, 8, 3)
    """

    network: str = "resnet32"
    batch: int = 100
    size: int = 32
    features: int = 0
    classes: int = 10
    precision: str = "float32"
    jit_compile: bool = False
    strategy: str = "none"
    replicas: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.features,) if self.features else (self.size, self.size, 3)

    @property
    def spec(self) -> DataSpec:
        names, last = tuple(map(str, range(self.classes))), self.shape[-1]
        return DataSpec("random", self.shape, "float32", names, np.zeros(last), np.ones(last))

    @property
    def at_once(self) -> int:
        """Steps in one call of a compiled function, as a run takes them."""
        return build.AT_ONCE if self.features else 1


def _method(setting: Setting, name: str) -> methods.Method:
    """Makes a method as a run on random data does, after a first stage with random predictions."""
    rng, count = np.random.default_rng(0), 10 * max(setting.batch, setting.classes)
    x, labels = rng.random((count, 2, 2, 1)), np.arange(count) % setting.classes
    other = np.random.default_rng(1).random(x.shape)  # the test set is of no use here
    source = data.from_arrays(x, labels, other, labels, name="random")
    bias = data.BiasConfig(noise="flip", noise_rate=0.4, meta_size=setting.classes, meta_labels="clean")
    splits = data.make_splits(source, bias)
    config = Experiment(method=name, noise="flip", noise_rate=0.4)
    estimated = {}
    if build.first_stage(config, name) == "erm":
        assert splits.meta is not None
        parts = (rng.dirichlet(np.ones(setting.classes), len(p)) for p in (splits.train, splits.meta))
        outputs = Outputs(next(parts), splits.train.y, next(parts), splits.meta.y)
        estimated = methods.METHODS[name].estimate(outputs)
    return build.make_method(config, name, splits, lambda spec: _network(setting), estimated)


def _network(setting: Setting) -> keras.Model:
    return networks.build(setting.network, setting.spec)


def _model(setting: Setting, mode: Mode) -> ReweightedModel:
    keras.config.set_dtype_policy(setting.precision)
    try:
        method, classifier = _method(setting, mode.method), _network(setting)
        if method.cosine_scale is not None:
            classifier = networks.with_cosine_head(classifier, method.cosine_scale)
        model = ReweightedModel(classifier, method)
        method.begin_epoch(*AMID)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(
        optimizers.SGD(0.1, momentum=0.9, l2=5e-4),
        optimizers.Adam(1e-3),
        metrics=[],
        jit_compile=setting.jit_compile,
        meta_scope=mode.scope,
        meta_late=mode.late,
        meta_ema=mode.ema,
    )
    return model


def _batches(setting: Setting, mode: Mode, method: methods.Method) -> dict[str, Batch]:
    """Makes random batches, of the sizes that a run would give the method."""
    rng = np.random.default_rng(0)

    def batch(size: int) -> Batch:
        x = tf.constant(rng.normal(size=(size, *setting.shape)), tf.float32)
        y = tf.constant(rng.integers(setting.classes, size=size))
        return Batch(x, y, tf.range(size, dtype=tf.int64))

    batches = {"train": batch(setting.batch * method.sampling.batch_factor)}
    if method.takes_meta_batches:
        batches["meta"] = batch(max(1, round(setting.batch * mode.meta_batch)))
    return batches


def make_step(
    setting: Setting, mode: Mode, strategy: tf.distribute.Strategy | None = None
) -> Callable[[bool], dict[str, np.ndarray]]:
    """Returns a function that takes `Setting.at_once` training steps and waits for their end.

    Its argument tells whether the weight net learns in them. All steps get the same random batch.

    Args:
        setting: sets network and batch.
        mode: the mode of training.
        strategy: distribution strategy to train under; none by default.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model = _model(setting, mode)
    batches = _batches(setting, mode, model.method)
    if replicas > 1:
        batches = strategy.experimental_distribute_values_from_function(
            lambda context: shares.part(batches, context.replica_id_in_sync_group, replicas)
        )
    local = strategy.experimental_local_results

    def function(learning: bool) -> Callable[[Any], dict[str, Any]]:
        """Compiles a step as `fit` does."""
        body = (
            naive.train_step
            if mode.naive
            else functools.partial(train_step.train_step, learning=learning)
        )

        def steps(data: Any) -> dict[str, Any]:
            def further(number: tf.Tensor) -> tuple[tf.Tensor]:
                with tf.control_dependencies(list(body(model, data).values())):
                    return (number + 1,)

            tf.while_loop(lambda number: number < setting.at_once, further, (tf.constant(1),))
            return body(model, data)

        several = setting.at_once > 1
        one = tf.function(
            steps if several else lambda data: body(model, data),
            jit_compile=setting.jit_compile,
            autograph=False,
        )
        if replicas == 1:
            return one
        return tf.function(lambda data: strategy.run(one, args=(data,)), autograph=False)

    functions = {learning: function(learning) for learning in (True, False)}

    def take_step(learning: bool) -> dict[str, np.ndarray]:
        results = functions[learning](batches)
        return tf.nest.map_structure(lambda v: np.asarray(local(v)[0]), results)

    return take_step
