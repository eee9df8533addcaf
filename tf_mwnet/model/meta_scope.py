"""Cheaper meta gradients: which parameters the virtual step moves, and how often there is one.

With the virtual step on the parameters S alone, the gradient with respect to the weights is

    G_i = -a < grad_S l_i(w), grad_S L(w_hat) >,

the terms of the others left out: backward passes of the virtual step and of the meta loss end at the
first layer of S.

With a late step of the weight net, the classifier's step takes the weights from before it,

    w <- w - a sum_i V(l_i; theta_t) grad l_i(w)        in place of        V(l_i; theta_{t+1}),

so that it shares its backward pass with the virtual step.

With a meta gradient in every k-th step only, the weight net keeps still in between. A run multiplies
its learning rate by k then, so that it moves as far in an epoch, and can have all of its first steps
learn, since a classifier that has learned wrong labels by heart does not forget them.
"""

from __future__ import annotations

import keras

from tf_mwnet.errors import UserError, check_range, choose
from tf_mwnet.methods.base import Method
from tf_mwnet.model import classifier_head

SCOPES = ("all", "last_stage", "head")
SPEEDS = ("exact", "fast")
# What "fast" stands for, and the share of a run's steps at its start that all learn.
FAST = {"meta_batch_size": 25, "meta_every": 10}
FAST_START = 0.1


def indexes(classifier: keras.Model, scope: str) -> list[int]:
    """Places in ``classifier.trainable_variables`` of the parameters in a scope, rising.

    Args:
        classifier: built.
        scope: "all"; "head", the last dense layer; "last_stage", the layers with parameters that work
            at the last (smallest) size of the feature maps, and what follows them. A classifier
            without feature maps has no stages: its last stage is its head.

    Raises:
        UserError: the scope is unknown, or a subclassed model's layers are not known to be in order.
    """
    choose("meta_scope", scope, dict.fromkeys(SCOPES))
    variables = classifier.trainable_variables
    if scope == "all":
        return list(range(len(variables)))
    dense = classifier_head.last_dense(classifier)
    if dense is None:
        raise UserError(
            f"meta_scope is '{scope}' with classifier '{classifier.name}'; allowed: all, for a model"
            " that is neither Sequential nor functional or does not end in a dense layer"
        )
    layers = [dense]
    if scope == "last_stage":
        order = [layer for layer in classifier.layers if layer.trainable_variables]
        sizes = [_size(layer) for layer in order]
        smallest = min(filter(None, sizes), default=0)
        last = max((i for i, size in enumerate(sizes) if size), default=len(order))
        # Those at that size, and those behind the last feature map.
        layers += [layer for i, layer in enumerate(order) if sizes[i] == smallest > 0 or i > last]
    wanted = {id(v) for layer in layers for v in layer.trainable_variables}
    return [place for place, v in enumerate(variables) if id(v) in wanted]


def check_every(method: Method, every: int) -> None:
    """Raises ``UserError`` where a method can not do without the meta gradient of each step."""
    check_range("meta_every", every, 1)
    if every > 1 and not (method.learns and method.trainable_variables):
        raise UserError(
            f"meta_every is {every} with {type(method).__name__}, which keeps nothing from one step to"
            " the next; allowed: 1"
        )


def check_late(method: Method, late: bool, scope: str) -> None:
    """Raises ``UserError`` where the weights of a step are not those that a method keeps."""
    if not late:
        return
    if scope != "all":
        raise UserError(f"meta_late is set with meta_scope '{scope}'; allowed: all")
    own = type(method).learn is not Method.learn or method.meta_gradient != "virtual"
    if own or not (method.learns and method.trainable_variables):
        raise UserError(
            f"meta_late is set with {type(method).__name__}, which takes its weights from the step's own"
            " meta gradient, or has none; allowed: mwnet and those like it"
        )


def _size(layer: keras.Layer) -> int:
    """Pixels of a layer's feature maps; 0 where it gives none."""
    shape = getattr(getattr(layer, "output", None), "shape", ())
    return int(shape[1] * shape[2]) if len(shape) == 4 and None not in shape[1:3] else 0
