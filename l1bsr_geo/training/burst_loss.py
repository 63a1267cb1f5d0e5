"""What methods that learn from bursts share: choosing frames, moving the grid, figures.

The reference is held out by leaving it out of what is fused; all motion stays against its grid, so
that the result lies on it. There its samples would always meet the same fine pixels, those of phase
zero, and nothing would be learnt of the others: the grid is therefore moved by some fine pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.base import BurstRestorer
from l1bsr_geo.ops.splat import read_at
from l1bsr_geo.ops.warp import Kernel, sample
from l1bsr_geo.training.objective import Batch, Figures

Restore = Callable[[Batch], Tensor]

COUNTS = (5, 16, 30)
"""Frames, the reference included, for which DSA (Nguyen et al. 2021) gives figures."""


def choose_frames(batch: Batch, chosen: npt.NDArray[np.int_]) -> Batch:
    """Some frames of each sample, in this order; flow and truth stay against view 0.

    Args:
        batch: bursts.
        chosen: (B, n).
    """
    device = batch.views.device
    sample_of = torch.arange(len(chosen), device=device)[:, None]
    frames = torch.from_numpy(chosen).to(device)
    flow, exposures = batch.flow, batch.exposures
    return replace(
        batch,
        views=batch.views[sample_of, frames],
        flow=None if flow is None else flow[sample_of, frames],
        exposures=None if exposures is None else exposures[sample_of, frames],
    )


def fuse_subset(batch: Batch, rng: np.random.Generator, least: int, most: int) -> Batch:
    """Without the reference: some of the other frames, as many in each sample, in random order.

    The first frame of what comes back has data everywhere, as restorers want it.

    Args:
        batch: bursts; flow and truth stay against view 0.
        rng: gives number and order.
        least: frames; fewer only where there are fewer.
        most: frames; fewer where there are fewer.

    Raises:
        BadInputError: there is no other frame, or none with data everywhere.
    """
    others = _others(batch, rng, least, most)
    subset = choose_frames(batch, others)
    holes = subset.views.isnan().flatten(2).any(2).cpu().numpy()
    if holes.any():
        if holes.all(1).any():
            raise BadInputError(
                f"of {others.shape[1]} frames chosen from a burst none has data everywhere; "
                "take smaller crops or more frames"
            )
        order = np.argsort(holes, 1, kind="stable")
        order[:, 1:].sort(1)  # only the first is exchanged: what follows stays in random order
        subset = choose_frames(batch, np.take_along_axis(others, order, 1))
    return subset


def join_subset(batch: Batch, rng: np.random.Generator, least: int, most: int) -> Batch:
    """The reference and some of the other frames, in random order; all as in ``fuse_subset``.

    Args:
        batch: bursts.
        rng: gives number and order.
        least: frames, the reference included.
        most: the same.
    """
    others = _others(batch, rng, least - 1, most - 1)
    return choose_frames(batch, np.pad(others, ((0, 0), (1, 0))))


def random_shift(rng: np.random.Generator, count: int, scale: int) -> Tensor:
    """Whole fine pixels to move the grid by, (count, 2) [coarse px], so that every phase is met."""
    return torch.from_numpy(rng.integers(0, scale, (count, 2)).astype(np.float32) / scale)


def shift_grid(flow: Tensor, shift: Tensor) -> Tensor:
    """The flow as a moved grid sees it, whose pixel q lies at q - shift of the reference.

    Where the flow is constant it loses the shift; where it is not, it is read there too.

    Args:
        flow: (B, T, C, 2, H, W) [px]: reference pixel p reads a view at p + flow(p).
        shift: (2,) or (B, 2) [px], (dx, dy).

    Returns:
        (B, T, C, 2, H, W) [px]: pixel q of the moved grid reads a view at q + result(q).
    """
    moved = shift.to(flow).expand(len(flow), 2)[..., None, None]
    height, width = flow.shape[-2:]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    x = (columns - moved[:, 0]).expand(-1, height, -1)
    y = (rows - moved[:, 1]).expand(-1, -1, width)
    read = read_at(flow.flatten(1, 3), x, y).view(flow.shape)
    return read - moved[:, None, None]


def sample_reference(fine: Tensor, scale: int, shift: Tensor, kernel: Kernel = "bicubic") -> Tensor:
    """A fine image at the pixels of the reference, from which its grid was moved.

    Reference pixel p lies at p + shift of the moved grid: on the fine sample
    ``scale * (p + shift)``, which is exact decimation where that is whole; else interpolated.

    Args:
        fine: (B, C, scale * H, scale * W), centre-aligned.
        scale: fine pixels to a pixel.
        shift: (2,), (B, 2) or (B, C, 2, H, W) [coarse px], (dx, dy).
        kernel: of the interpolation.

    Returns:
        (B, C, H, W).
    """
    count, bands = fine.shape[:2]
    height, width = (n // scale for n in fine.shape[-2:])
    if shift.ndim < 5:
        shift = shift.expand(count, 2)[:, None, :, None, None]
    places = shift.to(fine).expand(count, bands, 2, height, width).flatten(0, 1)
    columns = torch.arange(width, device=fine.device, dtype=fine.dtype)
    rows = torch.arange(height, device=fine.device, dtype=fine.dtype)[:, None]
    x, y = scale * (columns + places[:, 0]) + 0.5, scale * (rows + places[:, 1]) + 0.5
    return sample(fine.flatten(0, 1)[:, None], x, y, kernel).view(count, bands, height, width)


def is_clean(image: Tensor, saturated: float, reach: int = 0) -> Tensor:
    """Whether a pixel, and all within ``reach`` px of it, has data that are not saturated.

    Args:
        image: (B, C, H, W), NaN where there are no data.
        saturated: from this value on a pixel may have received more light than it tells.
        reach: [px].

    Returns:
        (B, C, H, W) bool.
    """
    clean = image < saturated  # NaN is not
    if reach:
        dirty = functional.max_pool2d((~clean).to(torch.float32), 2 * reach + 1, 1, reach)
        clean = dirty == 0
    return clean


def mean_error(a: Tensor, b: Tensor, border: int, known: Tensor | None = None) -> Tensor:
    """Mean absolute difference inside a border, where known; elsewhere both may be NaN."""
    inside = (..., slice(border, -border or None), slice(border, -border or None))
    a, b = a[inside], b[inside]
    if known is None:
        return (a - b).abs().mean()
    known = known[inside]
    # before the difference: its gradient would be NaN even where it is not counted
    a, b = (torch.where(known, image, 0) for image in (a, b))
    return (a - b).abs().sum() / known.sum().clamp_min(1)


def psnr(image: Tensor, truth: Tensor, border: int = 8, peak: float = FULL_SCALE) -> Tensor:
    """Peak signal to noise ratio of each sample inside a border, (B,) [dB].

    Args:
        image: (B, C, h, w).
        truth: the same.
        border: [px] left out.
        peak: of the signal.
    """
    inside = (..., slice(border, -border or None), slice(border, -border or None))
    error = (image - truth)[inside].double().square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


def restore(network: nn.Module | BurstRestorer, batch: Batch) -> Tensor:
    """Restored bursts, (B, C, scale * H, scale * W) [DN at exposure 1]."""
    restorer = cast("BurstRestorer", network)
    gain, exposures = restorer.spec.gain, batch.exposures
    fine = restorer(batch.views / gain, batch.flow, exposures=exposures).float() * gain
    return fine if exposures is None else fine / exposures[:, :1, None, None]


def score_frames(
    network: nn.Module | BurstRestorer, batch: Batch, counts: Sequence[int] = COUNTS
) -> Figures:
    """PSNR of full inference, the reference included; see ``score_restored``."""
    return score_restored(partial(restore, network), batch, counts)


def score_restored(
    restored: Restore, batch: Batch, counts: Sequence[int] = COUNTS, border: int = 8
) -> Figures:
    """PSNR against truth for several numbers of frames, averaged over the bursts.

    Args:
        restored: a batch to (B, C, scale * H, scale * W) [DN at exposure 1].
        batch: bursts with truth.
        counts: numbers of frames, from the first on; those that the bursts do not have are left
            out. All frames are taken where none is left.
        border: [fine px] left out.

    Returns:
        ``psnr_T`` for every number T, and their mean as ``score`` [dB].

    Raises:
        BadInputError: there is no truth.
    """
    if batch.truth is None:
        raise BadInputError("figures need truth, but these bursts have none; validate on simulated")
    there = batch.views.shape[1]
    figures = {}
    with torch.inference_mode():
        for count in [n for n in counts if n <= there] or [there]:
            first = choose_frames(batch, np.tile(np.arange(count), (len(batch.views), 1)))
            figures[f"psnr_{count}"] = float(psnr(restored(first), batch.truth, border).mean())
    return {"score": sum(figures.values()) / len(figures), **figures}


def _others(batch: Batch, rng: np.random.Generator, least: int, most: int) -> npt.NDArray[np.int_]:
    """(B, n) frames but the reference, drawn without repetition."""
    count, there = len(batch.views), batch.views.shape[1] - 1
    if there < 1:
        raise BadInputError("a burst of one frame: there is nothing to learn from; 2 are needed")
    number = int(rng.integers(min(least, there), min(most, there) + 1))
    return np.stack([1 + rng.permutation(there)[:number] for _ in range(count)])
