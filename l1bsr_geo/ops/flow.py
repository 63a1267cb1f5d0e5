"""Flows as maps from one image to another: their inverses, and changes of reference."""

import torch
from torch import Tensor

from l1bsr_geo.ops.splat import fine_positions, read_at

_CLOSE = 1e-4  # [px] a step of the fixed point shorter than this is its last
_STEPS = 20


def invert_flow(flow: Tensor) -> Tensor:
    """The flow that undoes another, by fixed point; exact where the flow is smooth.

    Where pixel p of the reference reads an image at p + flow(p), pixel q of the image belongs at
    q + inverse(q) in the reference: ``inverse(q) = -flow(q + inverse(q))``. It converges where
    the flow changes by less than a pixel per pixel.

    Args:
        flow: (B, 2, H, W) [px], (dx, dy); between pixel centres it is bilinear, and beyond the
            image it goes on as at its edge.

    Returns:
        (B, 2, H, W) [px].
    """
    inverse = -flow
    for _ in range(_STEPS):
        before, inverse = inverse, -read_flow(flow, inverse)
        if float((inverse - before).detach().abs().max()) < _CLOSE:
            break
    return inverse


def change_reference(flow: Tensor, reference: int) -> Tensor:
    """The flow of all frames as another frame than the first sees it.

    Args:
        flow: (B, T, 2, H, W) [px]: pixel p of the reference reads frame t at p + flow_t(p).
        reference: which frame is to be the reference.

    Returns:
        (B, T, 2, H, W) [px]: pixel q of the new reference reads frame t at q + result_t(q); zero
        for itself.
    """
    back = invert_flow(flow[:, reference])
    frames = [back + read_flow(frame, back) for frame in flow.unbind(1)]
    frames[reference] = torch.zeros_like(back)
    return torch.stack(frames, 1)


def read_flow(flow: Tensor, motion: Tensor) -> Tensor:
    """The flow at p + motion(p) for every pixel p, bilinear, (B, 2, H, W)."""
    return read_at(flow, *fine_positions(motion, 1))
