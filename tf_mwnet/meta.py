"""The virtual step, and the gradient of the meta loss with respect to the example weights.

With example losses l_i(w), example weights e_i and step size a, the virtual parameters

    w_hat(e) = w - a * sum_i e_i * grad l_i(w)                    (the virtual step of both)

are linear in e, so that for the meta loss L the gradient

    G_i = dL(w_hat(e)) / d e_i = -a * < grad l_i(w), grad L(w_hat) >   (by the chain rule)

is exact with one level of differentiation of the inner gradient. It needs no second forward pass
of the training batch: the outer tape records only the backward pass, as a function of e.

TensorFlow has no gradient of some gradients: it raises a LookupError for those (nearest and bicubic
resizing, softsign, cuDNN's recurrent kernels), or takes them for constants and drops their terms
(bilinear resizing). `check_differentiable` finds both in the graph that is traced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf
from tensorflow.python.framework import ops as registry  # the only place that tells

from tf_mwnet import replicas
from tf_mwnet.errors import UserError

BACKWARD = re.compile("Grad|Backprop")
# Attributes that hold the functions of loops, branches and calls.
FUNCTIONS = ("body", "cond", "then_branch", "else_branch", "f")
HELP = {
    "Resize": "resizing before the first trained layer, or UpSampling2D, which repeats pixels",
    "ScaleAndTranslate": "resizing before the first trained layer",
    "CudnnRNN": "the layer with use_cudnn=False",
    "Softsign": "another activation, or x / (1 + abs(x))",
}


def dense(gradients: Sequence, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Converts gradients to dense tensors: zeros for None, sums for IndexedSlices."""
    return [
        tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
        for g, v in zip(gradients, variables, strict=True)
    ]


def _scalar(value: tf.Tensor | float, dtype: tf.DType) -> tf.Tensor:
    # tf.cast would round a Python float to single precision on its way to double.
    return tf.cast(value, dtype) if hasattr(value, "dtype") else tf.constant(value, dtype)


def weight_gradient(
    loss_gradient: Callable[[tf.Tensor], list[tf.Tensor]],
    weights: tf.Tensor,
    parameters: Sequence[tf.Tensor],
    step_size: tf.Tensor,
    meta_loss: Callable[[list[tf.Tensor]], tf.Tensor],
    loss_scale: tf.Tensor | float = 1.0,
    meta_scale: tf.Tensor | float = 1.0,
    virtual_step: bool = True,
    averaged: Callable[[list[tf.Tensor]], list[tf.Tensor]] | None = None,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
    """Computes the gradient of the meta loss with respect to the example weights.

    On several replicas every argument is this replica's share; the virtual gradient and the
    gradient at the virtual parameters are summed over replicas.

    Args:
        loss_gradient: maps weights to the gradient of ``loss_scale * sum(weights * losses)`` with
            respect to ``parameters``, summed over this replica's examples, linear in the weights.
        weights: ``[B]`` or ``[B, K]``.
        parameters: the classifier's trainable parameters w.
        step_size: scalar a, the step of the virtual SGD (no momentum, no weight decay).
        meta_loss: maps virtual parameters to this replica's share of the mean meta loss, a scalar.
        loss_scale: factor that keeps half-precision training gradients in range.
        meta_scale: the same for the meta gradient; the result is multiplied by it.
        virtual_step: if False, the meta gradient is taken at ``parameters``, which is exact where the
            weights are 0. The virtual gradient is then not needed, and a traced step leaves it out.
        averaged: replaces the gradient at the virtual parameters (times ``meta_scale``, summed over
            replicas) by a moving average of it, see `tf_mwnet.model.averaging.GradientAverage`.

    Returns:
        ``(meta_scale * G, L, w_hat, g)``: the shape of ``weights``; a scalar, this replica's share; and
        two lists shaped like ``parameters``, g being ``loss_gradient(weights)``.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(weights)
        inner = loss_gradient(weights)
    virtual = [tf.convert_to_tensor(p) for p in parameters]
    if virtual_step:
        virtual = [
            p - _scalar(step_size, p.dtype) * g / _scalar(loss_scale, p.dtype)
            for p, g in zip(virtual, replicas.all_sum(inner), strict=True)
        ]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(virtual)
        loss = meta_loss(virtual)
        scaled = loss * _scalar(meta_scale, loss.dtype)
    at_virtual = replicas.all_sum(dense(tape.gradient(scaled, virtual), virtual))
    if averaged is not None:
        at_virtual = averaged(at_virtual)
    gradient = outer.gradient(inner, weights, output_gradients=at_virtual)
    factor = _scalar(step_size, weights.dtype) / _scalar(loss_scale, weights.dtype)
    return -factor * gradient, loss, virtual, inner


def check_differentiable(
    sources: Sequence[tf.Tensor], targets: Iterable[tf.Tensor | None], names: Sequence[str]
) -> None:
    """Checks that gradients can be differentiated; does nothing for eager tensors.

    Args:
        sources: what the gradients will be differentiated with respect to.
        targets: the gradients.
        names: of layers, for the message.

    Raises:
        UserError: an operation on the way has no derivative in TensorFlow.
    """
    ends = [t for t in targets if tf.is_tensor(t) and not hasattr(t, "numpy")]
    if not ends:
        return
    for op in _between(sources, ends):
        if (kind := _without_derivative(op)) is not None:
            places = re.findall(r"[^/]+", op.name)
            layers = [
                n for n in names if any(re.fullmatch(rf"{re.escape(n)}(_\d+)?", p) for p in places)
            ]
            where = f"layer '{max(layers, key=len)}'" if layers else f"the operation '{op.name}'"
            allowed = next((text for start, text in HELP.items() if kind.startswith(start)), "")
            allowed = allowed or "layers whose gradient has one"
            raise UserError(
                f"{where}: TensorFlow has no second derivative ({kind}), which the meta gradient needs;"
                f" allowed: {allowed}, or a method that learns nothing (erm)"
            )


def _between(sources: Sequence[tf.Tensor], ends: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """Returns the operations on the ways from ``sources`` to ``ends``."""
    behind, todo = set(), [t.op for t in ends]
    while todo:
        op = todo.pop()
        if op not in behind:
            behind.add(op)
            todo += [t.op for t in op.inputs[_skipped(op) :]]
    ahead, todo = set(), [op for t in sources if not hasattr(t, "numpy") for op in t.consumers()]
    while todo:
        op = todo.pop()
        if op not in ahead and op in behind:
            ahead.add(op)
            todo += [user for t in op.outputs for user in t.consumers()]
    return sorted(ahead, key=lambda op: op.name)


def _skipped(op: tf.Operation) -> int:
    """Returns how many first inputs of an operation its gradient does not go to.

    A function with a gradient of its own ends in an IdentityN of its results and arguments; the gradient
    goes to the arguments, whatever happened in between.
    """
    try:
        function = registry.gradient_registry.lookup(op.get_attr("_gradient_op_type").decode())
        for name in ("tape_grad_fn", "flat_result_len"):
            cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
            function = cells[name].cell_contents
        return int(function)
    except (ValueError, LookupError, AttributeError, TypeError):
        return 0


def _without_derivative(op: tf.Operation) -> str | None:
    """Returns the type of an operation, or of one in its functions, that has no derivative; or None."""
    try:
        function = registry.get_gradient_function(op)
    except LookupError:
        return op.type
    if function is None and BACKWARD.search(op.type) and any(t.dtype.is_floating for t in op.outputs):
        return op.type
    for attribute in FUNCTIONS:
        try:
            name = op.get_attr(attribute).name
        except (ValueError, AttributeError):
            continue
        for kind in _kinds(op.graph, name):
            if BACKWARD.search(kind) and _registered(kind) is None:
                return kind
    return None


def _kinds(graph: tf.Graph, name: str) -> set[str]:
    """Returns the types of the operations in a function of a graph."""
    try:
        definition = graph._get_function(name).function_def  # TensorFlow has no public way
    except (AttributeError, KeyError, ValueError):
        return set()
    return {node.op for node in definition.node_def} - {"BroadcastGradientArgs"}  # of integers


def _registered(kind: str) -> object:
    try:
        return registry.gradient_registry.lookup(kind)
    except LookupError:
        return None
