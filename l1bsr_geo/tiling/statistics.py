"""What a model that pools over the whole image is told about a scene that is read in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images import Scene, Views
from l1bsr_geo.tiling.nodata import fill_nodata, read_views
from l1bsr_geo.tiling.plan import TilePlan

if TYPE_CHECKING:
    from l1bsr_geo.models.registry import Model

SAMPLE_SIZE = 128
"""Side [px] of the windows that scene statistics are taken from: nine cost about half a tile."""


def take_statistics(model: Model, scene: Scene, plan: TilePlan) -> Any:
    """What the model pools over the scene, from up to nine windows spread over its valid part.

    Each is the middle of a tile; None where the scene has no data at all.
    """
    samples = []
    for part in _parts(plan):
        sample: Views | None = None
        most = 0.0
        for index in part:
            views = read_views(scene, _middle(plan[index].core, SAMPLE_SIZE))
            share = float(views.valid[0].all(0).mean())
            if share > most:
                sample, most = views, share
            if share > 0.5:
                break
        if sample is not None:
            samples.append(fill_nodata(sample.pixels, sample.valid)[None])
    return model.scene_statistics(samples) if samples else None


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
