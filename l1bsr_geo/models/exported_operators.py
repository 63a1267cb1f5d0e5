"""Which operators a graph of ``torch.export`` may call, and by which functions.

Graphs come from strangers. A graph names its functions as text, and some of those that torch has
read or write files (``aten::from_file``, ``aten::save``); only what computes numbers from numbers
is found here.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch


def find_operator(target: str) -> Callable[..., Any] | None:
    """The function of a node, or None where it is none of those allowed.

    Args:
        target: as the file has it, such as "torch.ops.aten.conv2d.default".
    """
    if target in _PLAIN:
        return _PLAIN[target]
    parts = target.split(".")
    if parts[:3] != ["torch", "ops", "aten"] or len(parts) != 5:
        return None
    name, overload = parts[3:]
    if name in _REFUSED or not (name.isidentifier() and overload.isidentifier()):
        return None
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or not hasattr(packet, overload):
        return None
    found = getattr(packet, overload)
    if not isinstance(found, torch._ops.OpOverload):
        return None
    writes = any(a.is_out for a in found._schema.arguments)
    tagged = torch.Tag.core in found.tags or torch.Tag.pointwise in found.tags
    return found if (tagged or name in _COMPOSITE) and not writes else None


def does_nothing(target: str) -> bool:
    """Whether a node only checks what was true when the graph was made."""
    return target in _CHECKS


_REFUSED = frozenset({"as_strided", "resize_", "empty", "empty_strided"})
"""Tagged as core, but they show or move memory as it lies."""

_COMPOSITE = frozenset(
    """
    _convolution _unsafe_view adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d
    addcdiv addcmul addmm all amax amin any arange argmax argmin avg_pool1d batch_norm
    bilinear broadcast_to celu channel_shuffle chunk clamp_max clamp_min col2im contiguous
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d cosine_similarity cumsum detach
    detach_ diff divide dropout einsum expand expand_as feature_dropout fill_ flatten flip
    floor_divide fold full_like glu grid_sampler group_norm hardsigmoid hardswish hardswish_
    hardtanh_ hstack im2col index_select instance_norm isfinite isinf isnan layer_norm
    leaky_relu_ lerp lift_fresh_copy linear linspace log_softmax logit logsumexp masked_fill
    matmul max max_pool2d maximum mean meshgrid min minimum mish moveaxis movedim multiply
    nan_to_num narrow new_full new_ones new_zeros norm one_hot ones ones_like pad permute
    pixel_shuffle pixel_unshuffle prelu prod reflection_pad1d relu6 replication_pad1d reshape
    roll rot90 rrelu rsub scalar_tensor scaled_dot_product_attention select_scatter selu silu
    silu_ slice_scatter softmax softplus split split_with_sizes square square_ squeeze
    squeeze_ stack std std_mean subtract sum swapaxes swapdims t tensor_split tile to
    transpose transpose_ true_divide type_as unbind unflatten unfold unsafe_chunk unsafe_split
    unsqueeze_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest2d
    upsample_nearest_exact2d upsample_trilinear3d var var_mean view_as vstack zero_ zeros
    zeros_like
    """.split()  # noqa: SIM905
)
"""Made of others, so that torch does not tag them; each computes tensors from tensors."""

_CHECKS = frozenset(
    {
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.aten._assert_tensor_metadata.default",
        "torch.ops.aten._assert_async.msg",
        "torch.ops.aten.sym_constrain_range.default",
        "torch.ops.aten.sym_constrain_range_for_size.default",
    }
)

_PLAIN: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
}
"""What is done with sizes."""
