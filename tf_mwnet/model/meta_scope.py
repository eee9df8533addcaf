"""Cheaper meta gradients: which parameters the virtual step moves, and how often it is taken.

With the virtual step on the parameters S alone, the gradient with respect to the weights is

    G_i = -a < grad_S l_i(w), grad_S L(w_hat) >,

without the terms of the other parameters: the backward passes of the virtual step and of the meta
loss end at the first layer of S.

With a late step of the weight net, the classifier is updated with the weights from before it,

    w <- w - a sum_i V(l_i; theta_t) grad l_i(w)        instead of         V(l_i; theta_{t+1}),

and shares its backward pass with the virtual step.

With a meta gradient in every k-th step only, the weight net does not change in between. A run then
raises its learning rate, see `tf_mwnet.experiment.rates.factor`. It can also let all of a part of
its steps learn, since a classifier does not forget the wrong labels that it has memorised. That
part need not be the first: as long as the classifier has learned nothing, right labels have large
losses too, and the weight net would learn to prefer these.

With an average of the meta loss's gradients, see `tf_mwnet.model.averaging.GradientAverage`, few and
small meta batches do.
"""

from __future__ import annotations

import keras

from tf_mwnet.errors import UserError, check_range, choose
from tf_mwnet.methods.base import Method
from tf_mwnet.model import classifier_head

SCOPES = ("all", "last_stage", "head")
SPEEDS = ("exact", "fast")
# The settings of "fast", and the part of a run in which no step learns, and then every one.
FAST = {"meta_batch_size": 25, "meta_every": 25, "meta_late": True, "meta_ema": 0.9}
FAST_START, FAST_WARMUP = 0.03, 0.04


def fast_steps(total: int) -> dict[str, int]:
    """Returns ``meta_start`` and ``meta_warmup`` of "fast" in a training of so many steps."""
    return {"meta_start": round(FAST_START * total), "meta_warmup": round(FAST_WARMUP * total)}


def fast_share() -> float:
    """Returns the share of the steps of a training that learn with ``speed="fast"``."""
    return FAST_WARMUP + (1 - FAST_START - FAST_WARMUP) / FAST["meta_every"]


def indexes(classifier: keras.Model, scope: str) -> list[int]:
    """Returns the positions in ``classifier.trainable_variables`` of a scope's parameters, ascending.

    Args:
        classifier: built.
        scope: "all"; "head", the last dense layer; "last_stage", the layers with parameters at the
            last (smallest) size of the feature maps, and those behind them. Without feature maps the
            last stage is the head.

    Raises:
        UserError: the scope is unknown, or the order of a subclassed model's layers is not known.
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


def check_turns(method: Method, every: int, start: int, at_once: int = 1) -> None:
    """Raises ``UserError`` for steps that differ, of a method that needs the meta gradient of each.

    Args:
        method: used.
        every, start: ``meta_every`` and ``meta_start``.
        at_once: ``steps_per_execution``; only steps that are alike can be taken at once.
    """
    for name, value, least in (("meta_every", every, 1), ("meta_start", start, 0)):
        check_range(name, value, least)
        if value > least and not (method.learns and method.trainable_variables):
            raise UserError(
                f"{name} is {value} with {type(method).__name__}, which keeps nothing from one step to"
                f" the next; allowed: {least}"
            )
        if value > least and at_once != 1:
            raise UserError(
                f"{name} is {value} with steps_per_execution {at_once}; allowed: {least}, or one step"
                " per execution"
            )


def check_ema(method: Method, momentum: float) -> None:
    """Raises ``UserError`` for a method that the average of several meta gradients is not for."""
    if momentum and not can_be_late(method):
        raise UserError(
            f"meta_ema is {momentum} with {type(method).__name__}, which has no meta gradient or its own"
            " use of it; allowed: 0"
        )


def can_be_late(method: Method) -> bool:
    """Tells whether a method's weights are still useful after the step whose meta gradient made them."""
    return bool(method.learns and method.trainable_variables) and learns_as_usual(type(method))


def learns_as_usual(kind: type[Method]) -> bool:
    """Tells whether a kind of method updates its variables by `Method.learn`, from the virtual step."""
    return kind.learn is Method.learn and kind.meta_gradient == "virtual"


def check_late(method: Method, late: bool, scope: str) -> None:
    """Raises ``UserError`` for a late step of a method whose weights depend on the step's gradient."""
    if not late:
        return
    if scope != "all":
        raise UserError(f"meta_late is set with meta_scope '{scope}'; allowed: all")
    if not can_be_late(method):
        raise UserError(
            f"meta_late is set with {type(method).__name__}, which takes its weights from the step's own"
            " meta gradient, or has none; allowed: mwnet and those like it"
        )


def _size(layer: keras.Layer) -> int:
    """Counts the pixels of a layer's feature maps; 0 if it returns none."""
    shape: tuple[int | None, ...] = getattr(getattr(layer, "output", None), "shape", ())
    if len(shape) != 4 or shape[1] is None or shape[2] is None:
        return 0
    return shape[1] * shape[2]
