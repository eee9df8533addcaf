"""Instance weights: one free parameter per training example."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.methods.base import Method
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="tf_mwnet")
class INSW(Method):
    """Learned instance weights: one free parameter for each training example.

        softmax:  weight_i = exp(phi_i) / sum_j exp(phi_j)
                  phi = 0 at the start; steps of the meta optimizer
        linear:   weight_i = phi_i / sum_j phi_j
                  phi = 1 at the start; phi_i <- max(phi_i / decay - G_i, 1e-5)

    j runs over the batch; G_i is the meta gradient with respect to the weight of example i. Nothing is
    shared between examples: an entry moves only when its example is in the batch (and by the optimizer's
    momentum), and nothing can be transferred to other data.

    Source: Hu et al., "Learning data manipulation", NeurIPS 2019; the linear form is that of the
    authors' commands for imbalanced classes.

    Departures: the virtual step is one step of SGD along the normalised weights; theirs applies the
    optimizer to each example alone and adds up the changes times phi. The meta gradient is that of a
    batch in training mode, theirs of the whole meta set in evaluation mode. In their code the softmax
    form moves phi as the linear form does, without an optimizer.

    Args:
        num_examples: N, number of training examples, at least 1; above every row that the training
            batches carry. A run fills it in.
        form: "softmax" or "linear", see above.
        decay: divisor of phi in each step of the linear form, at least 1; 5 or 2 in the authors'
            commands.
        **kwargs: as for `Method`.

    Raises:
        UserError: an argument is out of range.

    Examples:
        >>> method = tf_mwnet.methods.INSW(num_examples=len(y), form="linear")
        >>> model = tf_mwnet.ReweightedModel(classifier, method)
    """

    learns = True
    needs_meta = True
    from_run = ("num_examples",)
    meta_lr = 0.1  # an entry takes one step per epoch: with 1e-3 the weights would hardly move
    options = (
        Option(
            "form",
            "weights are a softmax of learned parameters, or these over their sum (linear)",
            choices=("softmax", "linear"),
        ),
        Option("decay", "divisor of a weight in each step of the linear form", at_least=1),
    )
    LEAST = 1e-5  # of phi in the linear form

    def __init__(
        self, num_examples: int, form: str = "softmax", decay: float = 5.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_examples = self.example_count(num_examples)
        self.form, self.decay = self.option("form", form), self.option("decay", decay)
        if self.form == "softmax":
            self.phi = self.add_weight(shape=(self.num_examples,), initializer="zeros", name="phi")
        else:
            self.phi = self.add_state((self.num_examples,), keras.config.floatx(), "phi")
            self.phi.assign(np.ones(self.num_examples))

    def example_weights(self, examples: Examples) -> tf.Tensor:
        phi = tf.convert_to_tensor(self.phi)
        values = tf.gather(phi, examples.index)
        if self.form == "softmax":
            # The largest of all entries, the same on every replica, keeps exp in range.
            values = tf.exp(values - tf.stop_gradient(tf.reduce_max(phi)))
        total = replicas.all_sum(tf.reduce_sum(values))
        return tf.cast(tf.math.divide_no_nan(values, total), examples.losses.dtype)

    def learn(
        self,
        gradient: tf.Tensor | None,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> tf.Tensor:
        if self.form == "softmax":
            return super().learn(gradient, examples, optimizer)
        index = replicas.gather(examples.index)
        slopes = replicas.gather(tf.cast(gradient, self.phi.dtype))
        phi = tf.convert_to_tensor(self.phi)
        new = tf.maximum(tf.gather(phi, index) / self.decay - slopes, self.LEAST)
        self.phi.assign(tf.tensor_scatter_nd_update(phi, index[:, None], new))
        return self.example_weights(examples)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_examples": self.num_examples}
