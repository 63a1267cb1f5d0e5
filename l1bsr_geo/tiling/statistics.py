"""What a model that pools over the whole image is told about a scene that is read in tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import Scene, Views
from l1bsr_geo.tiling.nodata import fill_nodata, read_views
from l1bsr_geo.tiling.plan import TilePlan

if TYPE_CHECKING:
    from l1bsr_geo.models.registry import Model

SAMPLE_SIZE = 128
"""Side [px] of the windows that scene statistics are taken from: nine cost about half a tile."""


def take_statistics(model: Model, scene: Scene, plan: TilePlan) -> Any:
    """What the model pools over the scene, from up to nine windows spread over its valid part.

    Each is the middle of a tile, or a whole one where no tile's middle has data; None where the
    scene has no data at all.
    """
    for size in (SAMPLE_SIZE, max(plan.shape)):
        samples = [s for part in _parts(plan) if (s := read_sample(scene, plan, part, size))]
        if samples:
            views = (views for _, views in samples)
            return model.scene_statistics([fill_nodata(v.pixels, v.valid)[None] for v in views])
    return None


def read_sample(
    scene: Scene, plan: TilePlan, tiles: Iterable[int], size: int
) -> tuple[Window, Views] | None:
    """The middle of the first tile of which more than half is valid, else of the most valid.

    Args:
        scene: what is read.
        plan: its tiles.
        tiles: which of them, in the order to be tried.
        size: largest side of the window [px].
    """
    sample: tuple[Window, Views] | None = None
    most = 0.0
    for index in tiles:
        window = _middle(plan[index].core, size)
        views = read_views(scene, window)
        share = float(views.valid[0].all(0).mean())
        if share > most:
            sample, most = (window, views), share
        if share > 0.5:
            break
    return sample


def _parts(plan: TilePlan) -> Iterator[list[int]]:
    """The tiles of up to 3 x 3 equal parts of the image, each part from its middle outwards."""
    rows, cols = (np.arange(n) for n in plan.tile_counts)
    for some_rows in np.array_split(rows, min(3, rows.size)):
        for some_cols in np.array_split(cols, min(3, cols.size)):
            r, c = (axis.ravel() for axis in np.meshgrid(some_rows, some_cols, indexing="ij"))
            order = np.argsort((r - r.mean()) ** 2 + (c - c.mean()) ** 2, kind="stable")
            yield [int(i) for i in (r * cols.size + c)[order]]


def _middle(window: Window, size: int) -> Window:
    width, height = min(size, window.width), min(size, window.height)
    left = window.col_off + (window.width - width) // 2
    top = window.row_off + (window.height - height) // 2
    return Window(left, top, width, height)
