"""The same samples seen otherwise: turned and mirrored, with their motion and their truth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops import turning
from l1bsr_geo.training.objective import Batch

Aligned: TypeAlias = Literal["centre", "corner"]

TURNS = turning.WAYS


def augment(
    batch: Batch,
    rng: np.random.Generator,
    *,
    aligned: Aligned = "centre",
    scale: int | None = None,
) -> Batch:
    """Every sample turned by quarters and mirrored by chance, as one of the 8 ways of a square.

    Samples that are not square are mirrored only.

    Args:
        batch: (B, T, C, H, W) and what is known of it.
        rng: one number is drawn for each sample.
        aligned: how the truth's grid lies on the coarse one; see `turn`.
        scale: fine pixels of the truth to a pixel; by default as the shapes tell.

    Returns:
        The same with views, flow and truth turned alike; exposures stay.
    """
    ways = rng.integers(TURNS, size=len(batch.views))
    if batch.views.shape[-1] != batch.views.shape[-2]:
        ways %= TURNS // 2
    return turn(batch, ways.tolist(), aligned=aligned, scale=scale)


def turn(
    batch: Batch,
    ways: Sequence[int],
    *,
    aligned: Aligned = "centre",
    scale: int | None = None,
) -> Batch:
    """Every sample turned in its own way.

    A truth that is aligned at centres has its sample ``scale * i`` on coarse sample ``i``, so what
    mirrors it is ``j -> scale * (n - 1) - j``. That leaves its last ``scale - 1`` samples along a
    mirrored axis without a source: they repeat the outermost one, and no score may count them.

    Args:
        batch: (B, T, C, H, W) and what is known of it.
        ways: B numbers below `TURNS`; 0 leaves a sample as it is.
        aligned: ``"centre"`` for bursts, ``"corner"`` for Sentinel-2, whose fine pixels tile the
            coarse ones.
        scale: fine pixels of the truth to a pixel; by default as the shapes tell.

    Raises:
        BadOptionError: a transposition of samples that are not square, or a truth of another
            shape than the scale asks for.
    """
    height, width = batch.views.shape[-2:]
    if height != width and any(way & 4 for way in ways):
        raise BadOptionError(f"samples of {height} x {width} cannot be transposed in one batch")
    views = _each(turning.turn, batch.views, ways)
    flow = None if batch.flow is None else _each(turning.turn_flow, batch.flow, ways)
    truth = None
    if batch.truth is not None:
        scale = scale or batch.truth.shape[-1] // width
        if batch.truth.shape[-2:] != (scale * height, scale * width):
            raise BadOptionError(
                f"the truth is {tuple(batch.truth.shape[-2:])} of samples {(height, width)}; "
                f"{scale} times them was expected"
            )
        lost = scale if aligned == "centre" else 1
        truth = _each(partial(_turn, scale=lost), batch.truth, ways)
    return replace(batch, views=views, flow=flow, truth=truth)


def _each(how: Callable[[Tensor, int], Tensor], images: Tensor, ways: Sequence[int]) -> Tensor:
    """Images (B, ..., H, W), each sample turned."""
    return torch.stack([how(image, way) for image, way in zip(images, ways, strict=True)])


def _turn(image: Tensor, way: int, scale: int) -> Tensor:
    for axis, bit in ((-1, 1), (-2, 2)):
        if way & bit:
            image = _mirror(image, axis, scale)
    return image.transpose(-1, -2) if way & 4 else image


def _mirror(image: Tensor, axis: int, scale: int) -> Tensor:
    mirrored = image.flip(axis)
    lost = scale - 1
    if not lost:
        return mirrored
    length = image.shape[axis]
    outermost = mirrored.narrow(axis, length - 1, 1)
    return torch.cat([mirrored.narrow(axis, lost, length - lost), *[outermost] * lost], axis)
