"""MentorNet DD: a curriculum learned from examples whose labels are known to be right or wrong."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import losses, replicas
from tf_mwnet.errors import check_range
from tf_mwnet.meta import dense
from tf_mwnet.methods.draws import draws
from tf_mwnet.methods.mentornet import MentorNet
from tf_mwnet.methods.options import Option
from tf_mwnet.methods.targets import given
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class MentorNetDD(MentorNet):
    """MentorNet DD: the network of MentorNet learns to tell correct labels from wrong ones.

        losses_ik = -log p_ik,    weights_ik = v_i d_i y_ik / B
        loss of g = mean over trusted i of the binary cross-entropy of v_i with [label i is correct]

    p is the softmax of the logits, y the label to train on, one-hot; v, d and g are those of
    `MentorNet`, from which g starts. The classifier is trained on the meta set too. A share of the meta
    set gets a wrong label, drawn once and uniformly from the other classes. So g learns from examples
    of which it is known whether the label is correct.

    Source: Jiang et al., ICML 2018; the authors' commands for the data-driven curriculum.

    Departures: g learns while the classifier does; the authors' learns once, from the losses of an
    earlier training. Theirs has a percentile of 0.8, 0.6 and 0.5 for 20, 40 and 80 % of wrong labels.

    Args:
        num_untrusted: number of untrusted examples, at least 0; rows from this number on are trusted. A
            run fills it in.
        num_trusted: number of trusted examples, at least 1. A run fills it in.
        wrong_share: share of the trusted examples that get a wrong label, 0 to 1. A run passes the rate
            of the synthetic noise, or 0.2.
        percentile, burn_in, dropout, fixed_percentage: as for `MentorNet`; 0.6, 0.18, 0.5 then 0.05
            then 0.9, and true in the authors' commands.
        **kwargs: as for `MentorNet`, without ``num_examples``.

    Raises:
        UserError: an argument is out of range; in `prepare`, the classifier's number of classes is
            unknown.

    Examples:
        >>> config = tf_mwnet.Experiment(method="mentornet_dd --burn_in=0.2", compare="erm")
        >>> result = tf_mwnet.run(config)
    """

    learns = True
    needs_meta = True
    meta_gradient = "none"
    smooths_labels = False
    trains_on = "both"
    from_run = ("num_untrusted", "num_trusted", "wrong_share", "seed")
    options = (
        *MentorNet.options,
        Option(
            "wrong_share", "of the meta set; by default the noise rate put in", at_least=0, at_most=1
        ),
    )

    def __init__(
        self,
        num_untrusted: int,
        num_trusted: int,
        wrong_share: float = 0.4,
        percentile: float = 0.6,
        burn_in: float = 0.18,
        dropout: tuple[float, float, float] = (0.5, 0.05, 0.9),
        fixed_percentage: bool = True,
        **kwargs: Any,
    ) -> None:
        check_range("num_untrusted", num_untrusted, 0)
        check_range("num_trusted", num_trusted, 1)
        super().__init__(
            num_untrusted + num_trusted,
            percentile=percentile,
            burn_in=burn_in,
            dropout=dropout,
            fixed_percentage=fixed_percentage,
            **kwargs,
        )
        self.num_untrusted, self.num_trusted = int(num_untrusted), int(num_trusted)
        self.wrong_share = self.option("wrong_share", wrong_share)

    def example_losses(
        self, logits: tf.Tensor, labels: tf.Tensor, index: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Computes ``-log p_ik``, ``[B, K]``; the weights select the labels."""
        return -tf.nn.log_softmax(losses.full_precision(logits))

    def _trusted(self, examples: Examples) -> tf.Tensor:
        """Tells which examples are of the meta set, bool ``[B]``."""
        return examples.index >= self.num_untrusted

    def _wrong(self, examples: Examples) -> tf.Tensor:
        """Tells which examples get a wrong label, bool ``[B]``."""
        uniform = draws(self.num_examples, self.seed, -1, examples.losses.dtype)
        wrong = tf.gather(uniform, examples.index) < self.wrong_share
        return tf.logical_and(wrong, self._trusted(examples))

    def labels(self, examples: Examples) -> tf.Tensor:
        label = given(examples)
        count = label.shape[1]
        uniform = draws(self.num_examples, self.seed, -2, label.dtype)
        shift = 1 + tf.cast(tf.gather(uniform, examples.index) * (count - 1), tf.int64)
        other = tf.one_hot((tf.argmax(label, axis=1) + shift) % count, count, dtype=label.dtype)
        return tf.where(self._wrong(examples)[:, None], other, label)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        return super().example_weights(examples)[:, None] * self.labels(examples)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        assert optimizer is not None
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            score = self.score(examples)
            right = tf.cast(tf.logical_not(self._wrong(examples)), score.dtype)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(right, score)
            trusted = tf.cast(self._trusted(examples), score.dtype)
            count = tf.maximum(replicas.all_sum(tf.reduce_sum(trusted)), 1)
            loss = tf.reduce_sum(trusted * entropy) / count
            scaled = optimizer.scale_loss(loss)
        slopes = tape.gradient(scaled, [v.value for v in variables])
        optimizer.apply(dense(slopes, variables), variables)
        return self.example_weights(examples)

    def label_weight(self, weights: tf.Tensor, examples: Examples) -> tf.Tensor:
        """Returns the weight of each example's given label, ``[B]``."""
        return tf.reduce_sum(weights * given(examples), axis=1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("num_examples")
        names = ("num_untrusted", "num_trusted")
        return config | {name: getattr(self, name) for name in names}
