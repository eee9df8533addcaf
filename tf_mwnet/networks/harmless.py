"""Which operations a weight function may have: a SavedModel is a program, and may come from others.

TensorFlow runs whatever a SavedModel's graph holds. Among its operations are ones that read and write
files and that call Python. A weight function needs arithmetic.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_mwnet.errors import UserError, quoted

STRUCTURE = """
    Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault StopGradient PreventGradient
    Shape ShapeN Size Rank Reshape Squeeze ExpandDims Pack Unpack Concat ConcatV2 Slice
    StridedSlice Split SplitV Tile BroadcastTo BroadcastArgs Fill ZerosLike OnesLike Range
    LinSpace Transpose Pad PadV2 MirrorPad ReverseV2 Gather GatherV2 GatherNd ScatterNd
    TensorScatterUpdate TensorScatterAdd Where Select SelectV2 OneHot Cast Bitcast EnsureShape
    InvertPermutation Unique UniqueV2 Diag DiagPart MatrixDiagV3 MatrixDiagPartV3 Bucketize
    SearchSorted UpperBound LowerBound TopKV2 VarHandleOp VarIsInitializedOp ReadVariableOp
    ResourceGather ResourceGatherNd PartitionedCall StatefulPartitionedCall If StatelessIf While
    StatelessWhile Case StatelessCase Switch Merge RefSwitch RefMerge LoopCond Enter Exit
    NextIteration Assert
"""
ARITHMETIC = """
    Add AddV2 AddN Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv FloorMod Mod TruncateDiv
    TruncateMod Neg Abs Sign Square Sqrt Rsqrt Reciprocal Inv Pow Exp Expm1 Log Log1p Sin Cos Tan
    Asin Acos Atan Atan2 Sinh Cosh Tanh Asinh Acosh Atanh Erf Erfc Erfinv Ndtri Lgamma Digamma
    Igamma Igammac Betainc Sigmoid LogSigmoid Softplus Softsign Softmax LogSoftmax Relu Relu6
    LeakyRelu Elu Selu Maximum Minimum ClipByValue Floor Ceil Round Rint SquaredDifference Xlogy
    Xlog1py Xdivy IsNan IsInf IsFinite Equal NotEqual Less LessEqual Greater GreaterEqual
    ApproximateEqual LogicalAnd LogicalOr LogicalNot Sum Mean Prod Max Min All Any EuclideanNorm
    ArgMax ArgMin Cumsum Cumprod MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum BiasAdd
    BiasAddV1 L2Loss SegmentSum UnsortedSegmentSum UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentProd _FusedMatMul FusedBatchNorm FusedBatchNormV3
"""
# What the functions that save and restore the variables take besides.
OF_SAVING = """
    SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename StringJoin StaticRegexFullMatch
    AssignVariableOp DisableCopyOnRead
"""
ALLOWED, SAVING = frozenset((STRUCTURE + ARITHMETIC).split()), frozenset(OF_SAVING.split())


def check(folder: pathlib.Path) -> None:
    """Checks the operations of a SavedModel, without loading it.

    Args:
        folder: with ``saved_model.pb``.

    Raises:
        UserError: an operation is not among `ALLOWED`, or the file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise UserError(f"weight net '{folder}' cannot be loaded: {error}") from error
    for graph in model.meta_graphs:
        if not graph.object_graph_def.nodes:
            raise UserError(f"weight net '{folder}' is of TensorFlow 1; allowed: one of TensorFlow 2")
        if bad := _not_allowed(graph):
            shown = _signature(graph)
            if not shown.startswith("loss "):
                raise UserError(
                    f"weight net '{folder}' has the signature: {shown}; allowed: serving_default with"
                    " loss -> weight"
                )
            raise UserError(
                f"weight net '{folder}' has the operation {quoted(sorted(bad)[:3])}; allowed: arithmetic"
            )


def _signature(graph: Any) -> str:
    """Formats the inputs and outputs of ``serving_default``."""
    signature = graph.signature_def["serving_default"]
    parts = []
    for name, info in [*signature.inputs.items(), *signature.outputs.items()]:
        shape = tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim)
        parts.append(f"{name} {tf.as_dtype(info.dtype).name}{shape}")
    return ", ".join(parts) or "none"


def _not_allowed(graph: Any) -> set[str]:
    """Returns what is wrong in a meta graph: operations, and calls of the functions that save."""
    saver = graph.saver_def
    savers = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    saving = {n.attr["f"].func.name for n in graph.graph_def.node if n.name in savers}
    bad: set[str] = set()
    for node in graph.graph_def.node:
        if node.name not in savers:
            bad |= _wrong([node], saving, ALLOWED)
    for function in graph.graph_def.library.function:
        allowed = ALLOWED | SAVING if function.signature.name in saving else ALLOWED
        bad |= _wrong(function.node_def, saving, allowed)
    for node in graph.object_graph_def.nodes:
        called = {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name}
        bad |= {f"call of {name}" for name in called & saving}
    return bad


def _wrong(nodes: Iterable[Any], saving: set[str], allowed: frozenset[str]) -> set[str]:
    operations = {node.op for node in nodes} - allowed
    called = set()
    for node in nodes:
        for value in node.attr.values():
            called |= {value.func.name, *(f.name for f in value.list.func)}
    return operations | {f"call of {name}" for name in called & saving}
