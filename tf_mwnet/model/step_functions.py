"""How ``fit`` calls the steps of a model: the functions that are compiled from them."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mwnet import strategies
from tf_mwnet.errors import UserError


class StepFunctions(keras.Model):
    """Keras's, and what it lacks: steps of two kinds in turn, and several workers.

    Keras averages what the replicas return in a way that fails on several workers; there the functions
    are our own, and average by `tf.distribute.Strategy.reduce`.
    """

    _meta_every, _meta_warmup, _turn, _learning = 1, 0, 0, True

    def make_train_function(self, force=False):
        """As Keras's; with ``meta_every`` a second function, for the steps that do not learn."""
        if self.train_function is not None and not force:
            return
        self.train_function = self._function("train")
        if self._meta_every == 1:
            return
        functions = {True: self.train_function, False: self._function("train")}

        def one_step(iterator):
            turn = self._turn
            # Read while a function is traced.
            self._learning = turn < self._meta_warmup or turn % self._meta_every == 0
            self._turn += 1
            return functions[self._learning](iterator)

        self.train_function = one_step

    def make_test_function(self, force=False):
        """As Keras's."""
        if self.test_function is None or force:
            self.test_function = self._function("test")

    def _function(self, what: str):
        strategy = self.distribute_strategy
        if not strategies.several_workers(strategy):
            getattr(super(), f"make_{what}_function")(force=True)
            return getattr(self, f"{what}_function")
        step, names = getattr(self, f"{what}_step"), []

        def packed(data):
            results = step(data)
            names[:] = results
            return tf.stack([tf.cast(v, tf.float32) for v in results.values()])

        def one_step(iterator):
            results = strategy.run(packed, args=(next(iterator),))
            means = strategy.reduce(tf.distribute.ReduceOp.MEAN, results, axis=None)
            return dict(zip(names, tf.unstack(means), strict=True))

        return one_step if self.run_eagerly else tf.function(one_step, autograph=False)

    def check_workers(self, jit_compile: bool, steps_per_execution: int) -> None:
        """Raises ``UserError`` for what only Keras's functions can do, on several workers."""
        if not strategies.several_workers(self.distribute_strategy):
            return
        for name, value, allowed in (
            ("jit_compile", jit_compile, False),
            ("steps_per_execution", steps_per_execution, 1),
        ):
            if value != allowed:
                raise UserError(f"{name} is {value} with several workers; allowed: {allowed}")

    def build_metrics(self, labels: tf.TensorSpec) -> None:
        """Has the metrics make their variables, which they else do when they first see labels.

        In the first step TensorFlow would then trace it twice. Under a strategy Keras does this.
        """
        shape = getattr(getattr(self, "classifier", None), "output_shape", None)
        known = isinstance(shape, tuple) and None not in (*shape[1:], *labels.shape[1:])
        if self._distribute_strategy is None and known:
            given = tf.zeros([1, *labels.shape[1:]], labels.dtype)
            self.compute_metrics(None, given, tf.zeros([1, *shape[1:]], self.compute_dtype))
            self.reset_metrics()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a strategy Keras learns the shapes of the first batch by averaging it over replicas,
        # which wants parts of one size and the form (x, y). The first replica's part serves as well.
        if self._distribute_strategy is not None and iterator is not None:
            local = self.distribute_strategy.experimental_local_results
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(lambda v: local(v)[0], next(batches))
            if isinstance(data_batch, dict):
                data_batch = (data_batch["train"].x, data_batch["train"].y)
        super()._maybe_symbolic_build(data_batch=data_batch)
