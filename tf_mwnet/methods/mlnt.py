"""Meta-learning of parameters that tolerate synthetic label noise."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import check_range
from tf_mwnet.methods.draws import draws
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.probe import Probe
from tf_mwnet.methods.targets import SoftTargets, given
from tf_mwnet.types import Examples, Head


def neighbours(features: tf.Tensor, among: tf.Tensor, count: int) -> tf.Tensor:
    """Finds the nearest neighbours of each example, without the example itself.

    Args:
        features: float ``[b, D]``, examples that are also in ``among``.
        among: float ``[n, D]``, the examples to search.
        count: number of neighbours, at least 1.

    Returns:
        int32 ``[b, min(count, n - 1)]``, positions in ``among``, nearest first; ``[b, 1]``, the
        example's own position, if n is 1.
    """
    square = tf.reduce_sum(features**2, axis=1)[:, None] + tf.reduce_sum(among**2, axis=1)[None]
    distance = square - 2 * tf.linalg.matmul(features, among, transpose_b=True)
    order = tf.argsort(distance, axis=1, stable=True)
    return order[:, tf.minimum(1, tf.shape(among)[0] - 1) : count + 1]


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MLNT(SoftTargets):
    """Meta-learning based noise-tolerant training: predictions that survive a step on wrong labels.

        losses_ik = -log p_ik,    weights_ik = y_ik / B
        J_m = mean_i KL(p(x_i; teacher) || p(x_i; w_m)) / K
        gradient = d sum(weights * losses) / dw + ramp mean_m dJ_m / dw_m

    p is the softmax of the logits, y the given label, one-hot, and the teacher a moving average of the
    parameters w. Each step makes M copies of its batch in which a share of the labels is replaced by
    labels of near neighbours. w_m is w after one virtual step on the cross-entropy with the labels of
    copy m, and J_m the consistency loss there. The factor ``ramp`` is 0 during the warm-up; then it
    rises as ``exp(-5 (1 - u)^2)``, u from 0 to 1, until ``ramp_up`` of the epochs. As in the authors'
    code, both gradients make one step, J is a mean over the K classes too, and the gradient of J passes
    through the virtual step: ``dJ_m / dw = (I - lr H_m) dJ_m / dw_m``, H_m the Hessian of the
    cross-entropy of copy m.

    Source: Li et al., CVPR 2019, Algorithm 1.

    Departures:

    - neighbours are found within the batch (as in the authors' code), by the current features of the
      classifier instead of those of one trained before;
    - the virtual step uses the optimizer's learning rate;
    - ramp and warm-up are fractions of the training, in place of 500 and 2,000 steps;
    - one iteration, without the second training on the examples that the teacher agrees with;
    - the trained classifier is the student.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        copies: M, batches with synthetic labels per step, at least 1; 10 in the paper.
        replaced: share of the labels that is replaced, 0 to 1; 0.5 in the authors' code.
        neighbours: number of near neighbours that a label is drawn from, at least 1; 10 in the paper.
        decay: decay of the teacher's moving average after the ramp, 0 to 1; 0.999 in the paper. Before,
            it is at most 0.99.
        warm_up: fraction of the epochs without J, 0 to 1.
        ramp_up: fraction of the epochs until J counts in full, ``warm_up`` to 1.
        per_class: take the mean over the classes in J; else the sum, the divergence itself.
        second_order: keep the term with H_m; without, a step takes about half the time.
        seed: seed of the draws.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range; in `prepare`, the classifier does not end in a dense
            layer whose input could be used as features.

    Examples:
        >>> method = tf_mwnet.methods.MLNT(num_examples=len(y), copies=5)
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    uses_features = True
    num_examples: int
    from_run = ("num_examples", "seed")
    options = (
        Option("copies", "batches with synthetic labels per step", at_least=1),
        Option("replaced", "share of the labels that is replaced", at_least=0, at_most=1),
        Option("neighbours", "near neighbours that a label is drawn from", at_least=1),
        Option("decay", "of the teacher's moving average after the ramp", at_least=0, at_most=1),
        Option("warm_up", "part of the epochs without the consistency loss", at_least=0, at_most=1),
        Option("ramp_up", "part of the epochs until it counts in full", at_least=0, at_most=1),
        Option("per_class", "take the mean over the classes in the consistency loss"),
        Option("second_order", "differentiate through the virtual step"),
    )

    def __init__(
        self,
        num_examples: int,
        copies: int = 10,
        replaced: float = 0.5,
        neighbours: int = 10,
        decay: float = 0.999,
        warm_up: float = 0.1,
        ramp_up: float = 0.4,
        per_class: bool = True,
        second_order: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        check_range("ramp_up", ramp_up, warm_up, 1)
        self.seed = int(seed)
        self.copies = self.option("copies", copies)
        self.replaced = self.option("replaced", replaced)
        self.neighbours = self.option("neighbours", neighbours)
        self.decay = self.option("decay", decay)
        self.warm_up = self.option("warm_up", warm_up)
        self.ramp_up = self.option("ramp_up", ramp_up)
        self.per_class = self.option("per_class", per_class)
        self.second_order = self.option("second_order", second_order)
        self.step = self.add_state((), "int64", "step")
        self.ramp = self.add_state((), keras.config.floatx(), "ramp")
        self.kept = self.add_state((), keras.config.floatx(), "kept")
        self.teacher: list[keras.Variable] = []

    def prepare(self, head: Head) -> None:
        super().prepare(head)
        if not self.teacher:
            self.teacher = [
                self.add_state(shape, dtype, f"teacher_{i}")
                for i, (shape, dtype) in enumerate(head.parameters)
            ]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        done = epoch / epochs
        rise = (done - self.warm_up) / max(self.ramp_up - self.warm_up, 1e-9)
        factor = float(np.exp(-5 * (1 - min(rise, 1)) ** 2)) if rise >= 0 else 0.0
        self.ramp.assign(factor)
        self.kept.assign(self.decay if rise >= 1 else min(self.decay, 0.99))

    def observe(self, examples: Examples) -> None:
        self.step.assign(self.step + 1)

    def targets(self, examples: Examples) -> tf.Tensor:
        return given(examples)

    def synthetic(self, examples: Examples) -> tf.Tensor:
        """Draws M sets of labels with synthetic noise, ``[M, b, K]``."""
        label, index = given(examples), examples.index
        everywhere = replicas.gather(label)
        features = tf.cast(examples.features, label.dtype)
        near = neighbours(features, replicas.gather(features), self.neighbours)
        count = tf.cast(tf.shape(near)[1], label.dtype)
        size = tf.shape(everywhere)[0]
        some = tf.cast(self.replaced * tf.cast(size, label.dtype), tf.int32)
        rows = replicas.gather(index)
        sets = []
        for copy in range(self.copies):
            step = 2 * (self.step * self.copies + copy)
            order = draws(self.num_examples, self.seed, step, label.dtype)
            limit = tf.sort(tf.gather(order, rows))[tf.maximum(some, 1) - 1]
            chosen = tf.logical_and(tf.gather(order, index) <= limit, some > 0)
            place = draws(self.num_examples, self.seed, step + 1, label.dtype)
            place = tf.cast(tf.gather(place, index) * count, tf.int32)
            other = tf.gather(everywhere, tf.gather(near, place, axis=1, batch_dims=1))
            sets.append(tf.where(chosen[:, None], other, label))
        return tf.stack(sets)

    def further_gradient(self, examples: Examples, probe: Probe) -> list[tf.Tensor]:
        self._follow(probe.parameters)
        ramp = tf.convert_to_tensor(self.ramp)
        return [tf.cast(ramp, g.dtype) * g for g in self._consistency(examples, probe)]

    def _follow(self, parameters: list[tf.Tensor]) -> None:
        """Moves the teacher; it equals the classifier as long as the ramp is 0."""
        step, kept = tf.cast(self.step, self.kept.dtype), tf.convert_to_tensor(self.kept)
        kept = tf.where(tf.convert_to_tensor(self.ramp) > 0, tf.minimum(kept, 1 - 1 / step), 0)
        for old, new in zip(self.teacher, parameters, strict=True):
            share = tf.cast(kept, old.dtype)
            old.assign(share * old + (1 - share) * new)

    def _consistency(self, examples: Examples, probe: Probe) -> list[tf.Tensor]:
        """Returns this replica's share of mean_m dJ_m / dw, a tensor for each parameter."""
        labels = self.synthetic(examples)
        size = replicas.batch_size(examples.losses, labels.dtype)
        types = [p.dtype for p in probe.parameters]
        # Two loops over the copies, so that the replicas' sum is taken outside of both.
        slopes = tf.map_fn(lambda t: probe.gradient(t / size), labels, fn_output_signature=types)
        slopes = replicas.all_sum(slopes)
        teacher = [tf.convert_to_tensor(v) for v in self.teacher]
        log_teacher = tf.nn.log_softmax(losses.full_precision(probe.logits(teacher)))

        def divergence(logits: tf.Tensor) -> tf.Tensor:
            apart = log_teacher - tf.nn.log_softmax(losses.full_precision(logits))
            count = size * (log_teacher.shape[1] if self.per_class else 1)
            return tf.reduce_sum(tf.exp(log_teacher) * apart) / tf.cast(count, apart.dtype)

        def at_virtual(slope: list[tf.Tensor]) -> list[tf.Tensor]:
            pairs = zip(probe.parameters, slope, strict=True)
            virtual = [p - tf.cast(probe.learning_rate, p.dtype) * s for p, s in pairs]
            return probe.gradient_at(virtual, divergence)

        each = tf.map_fn(at_virtual, slopes, fn_output_signature=types)
        if self.second_order:
            whole = replicas.all_sum(each)

            def through(step: tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]) -> list[tf.Tensor]:
                target, share, direction = step
                bent = probe.curvature(direction, lambda z: self._entropy(z, target, size))
                return [
                    s - tf.cast(probe.learning_rate, s.dtype) * b
                    for s, b in zip(share, bent, strict=True)
                ]

            each = tf.map_fn(through, (labels, each, whole), fn_output_signature=types)
        return [tf.reduce_mean(g, axis=0) for g in each]

    def _entropy(self, logits: tf.Tensor, target: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Computes this replica's share of the cross-entropy, a scalar."""
        log = tf.nn.log_softmax(losses.full_precision(logits))
        return -tf.reduce_sum(tf.cast(target, log.dtype) * log) / tf.cast(size, log.dtype)

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_examples",
            "copies",
            "replaced",
            "neighbours",
            "decay",
            "warm_up",
            "ramp_up",
            "seed",
        )
        return super().get_config() | {name: getattr(self, name) for name in names}
