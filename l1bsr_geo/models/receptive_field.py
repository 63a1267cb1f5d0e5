"""How far a restorer really looks."""

from typing import cast

import torch
from torch import Tensor

from l1bsr_geo.models.base import Restorer, SceneRestorer

IMPULSE = 1000.0
"""Height of the impulse, and of the noise it is put in [DN]."""


@torch.inference_mode()
def probe_halo(
    restorer: Restorer,
    *,
    limit: int | None = None,
    tolerance: float = 0.01,
    device: str | torch.device = "cpu",
    bands: int | None = None,
) -> int:
    """The context that a restorer needs around a tile, found by changing one pixel of noise.

    Motion is zero, so a restorer that takes flow needs this and the largest motion. Statistics of
    the scene, where it pools, are frozen. Where it works on a lattice (``spec.multiple``), four
    places in a cell are tried.

    Args:
        restorer: in evaluation mode, on ``device``.
        limit: distances beyond this are not looked at; ``spec.halo + 8`` where None.
        tolerance: a change of the result by this much [DN], after an impulse of 1000 DN, counts.
        device: where the restorer is.
        bands: how many it is given, where any number will do.

    Returns:
        The largest distance [px of the input], along a row or a column, between a pixel and one
        whose restoration it changes. ``limit`` or a little more says: that or farther.
    """
    spec = restorer.spec
    limit = spec.halo + 8 if limit is None else limit
    size = -(-(2 * limit + spec.multiple) // spec.multiple) * spec.multiple
    shape = (1, spec.frames[0], spec.band_count or bands or 1, size, size)
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(shape, generator=generator) * (IMPULSE / spec.gain)).to(device)
    flow = noise.new_zeros(*shape[:3], 2, size, size) if spec.flow else None

    def restore(views: Tensor) -> Tensor:
        if spec.scene_statistics:
            return cast("SceneRestorer", restorer)(views, flow, statistics)
        return restorer(views, flow)

    statistics = (
        cast("SceneRestorer", restorer).scene_statistics(noise) if spec.scene_statistics else None
    )
    undisturbed = restore(noise)
    radius = 0
    for phase in sorted({spec.multiple * k // 4 for k in range(4)}):
        at = limit + phase
        views = noise.clone()
        views[..., at, at] += IMPULSE / spec.gain
        change = (restore(views) - undisturbed).abs().amax((0, 1)) * spec.gain
        rows_and_columns = torch.nonzero(change > tolerance) // spec.scale
        if len(rows_and_columns):
            radius = max(radius, int((rows_and_columns - at).abs().max()))
    return radius
