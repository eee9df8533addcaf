"""A method of your own, with an option: an example counts by how confident the classifier is.

The documentation page "Add a method" goes through this file.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_mwnet import replicas
from tf_mwnet.methods import METHODS, Method
from tf_mwnet.methods.options import Option
from tf_mwnet.types import Examples


@keras.saving.register_keras_serializable(package="example")
class Confident(Method):
    """Weights ``p_i^power / sum_j p_j^power``, p the probability of the given label.

    Args:
        power: 0 is plain training; a higher power gives unlikely labels less weight.
    """

    options = (Option("power", "how fast the weight falls with the probability", at_least=0),)

    def __init__(self, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = self.option("power", power)

    def example_weights(self, examples: Examples) -> tf.Tensor:
        value = tf.exp(-self.power * examples.losses)  # the loss is -log p
        return value / replicas.all_sum(tf.reduce_sum(value))


METHODS["confident"] = Confident


def main() -> None:
    """Trains on the digits with 40 % wrong labels, with two values of the option."""
    from tf_mwnet import Experiment, run

    for power in (0, 0.5):
        text = f"confident --power={power}"
        result = run(Experiment(method=text, meta_size=0, epochs=20, lr_drops=(15,)))
        print(f"{text}: {100 * result.methods['confident']['last']:.1f} %")


if __name__ == "__main__":
    main()
