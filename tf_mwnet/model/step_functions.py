"""The compiled functions that ``fit`` and ``evaluate`` call, made from the steps of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import strategies
from tf_mwnet.errors import UserError


class StepFunctions(keras.Model):
    """Adds to Keras's functions: steps of several kinds, and training on several workers.

    Keras averages the replicas' results in a way that fails on several workers; there the functions
    are our own and average by `tf.distribute.Strategy.reduce`.
    """

    train_function: Callable[[Any], Any] | None
    test_function: Callable[[Any], Any] | None
    _meta_start, _meta_warmup, _meta_every = 0, 0, 1
    _turn, _learning = 0, True
    _first_step = 0

    def make_train_function(self, force: bool = False) -> None:
        """Makes the train function: of a function for each kind of step, made when it is needed.

        With ``meta_start`` and ``meta_every`` some steps do not learn; in a plain epoch of the method
        none does.
        """
        if self.train_function is not None and not force:
            return
        functions: dict[tuple[bool, bool], Callable[[Any], Any]] = {}

        def one_step(iterator: Any) -> Any:
            turn = self._turn
            # `train_step` reads this, and whether the epoch is plain, while it is traced.
            self._learning = self._learns_in(turn)
            self._turn += 1
            kind = self._learning, self._is_plain()
            if kind not in functions:
                functions[kind] = self._function("train")
                self.train_function = one_step
            return functions[kind](iterator)

        self.train_function = one_step

    def _learns_in(self, turn: int) -> bool:
        since = turn - self._meta_start
        return since >= 0 and (since < self._meta_warmup or since % self._meta_every == 0)

    def _is_plain(self) -> bool:
        """Tells whether the steps now are plain, see `tf_mwnet.methods.Method`."""
        return False

    def make_test_function(self, force: bool = False) -> None:
        """Makes the test function."""
        if self.test_function is None or force:
            self.test_function = self._function("test")

    def _function(self, what: str) -> Callable[[Any], Any]:
        strategy = self.distribute_strategy
        if not strategies.several_workers(strategy):
            getattr(super(), f"make_{what}_function")(force=True)
            return getattr(self, f"{what}_function")
        step = getattr(self, f"{what}_step")
        names: list[str] = []

        def packed(data: Any) -> tf.Tensor:
            results = step(data)
            names[:] = results
            return tf.stack([tf.cast(v, tf.float32) for v in results.values()])

        def one_step(iterator: Any) -> dict[str, tf.Tensor]:
            results = strategy.run(packed, args=(next(iterator),))
            means = strategy.reduce(tf.distribute.ReduceOp.MEAN, results, axis=None)
            return dict(zip(names, tf.unstack(means), strict=True))

        return one_step if self.run_eagerly else tf.function(one_step, autograph=False)

    def check_workers(self, jit_compile: bool, steps_per_execution: int) -> None:
        """Raises ``UserError`` for features of Keras's functions that several workers do not have."""
        if not strategies.several_workers(self.distribute_strategy):
            return
        for name, value, allowed in (
            ("jit_compile", jit_compile, False),
            ("steps_per_execution", steps_per_execution, 1),
        ):
            if value != allowed:
                raise UserError(f"{name} is {value} with several workers; allowed: {allowed}")

    def build_metrics(self, labels: tf.TensorSpec) -> None:
        """Lets the metrics create their variables before the first step.

        They would create them on their first labels, and TensorFlow would trace the first step twice.
        Under a strategy Keras does the same.
        """
        shape = getattr(getattr(self, "classifier", None), "output_shape", None)
        if self._distribute_strategy is not None or not isinstance(shape, tuple):
            return
        if None not in (*shape[1:], *labels.shape[1:]):
            given = tf.zeros([1, *labels.shape[1:]], labels.dtype)
            self.compute_metrics(None, given, tf.zeros([1, *shape[1:]], self.compute_dtype))
            self.reset_metrics()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras finds the shapes of the first batch by averaging it over replicas,
        # which needs parts of one size in the form (x, y). The first replica's part is enough.
        if self._distribute_strategy is not None and iterator is not None:
            local = self.distribute_strategy.experimental_local_results
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(lambda v: local(v)[0], next(batches))
            if isinstance(data_batch, dict):
                data_batch = (data_batch["train"].x, data_batch["train"].y)
        super()._maybe_symbolic_build(data_batch=data_batch)
