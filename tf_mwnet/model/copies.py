"""Copies of classifiers."""

from __future__ import annotations

import keras

from tf_mwnet.errors import UserError


def copied(classifier: keras.Model) -> keras.Model:
    """Copies a classifier with its values, to variables outside of any strategy.

    Raises:
        UserError: it is a class of the user's, or has a layer of one, that Keras cannot make anew.
    """
    try:
        copy = keras.models.clone_model(classifier)
        copy.set_weights(classifier.get_weights())
    except Exception as error:  # Keras and the user's classes raise many types
        reason = str(error).strip().partition("\n")[0][:120]
        raise UserError(
            f"classifier '{classifier.name}' cannot be copied ({reason}); allowed: a Sequential or"
            " functional model, or a class with a get_config that has what its constructor takes"
        ) from error
    return copy
