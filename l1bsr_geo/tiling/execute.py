"""map_tiles: a model over a scene, tile by tile and lazily."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.images.pixels import GeoImage, Scene
from l1bsr_geo.tiling.encoding import Encoding, OutputType, choose_encoding
from l1bsr_geo.tiling.fitting import Piece, Restoration
from l1bsr_geo.tiling.nodata import BoolArray, fill_views, find_valid, read_views
from l1bsr_geo.tiling.plan import Tile, TilePlan
from l1bsr_geo.tiling.shelf import name_restoration, take_tile
from l1bsr_geo.tiling.statistics import take_statistics

if TYPE_CHECKING:
    from l1bsr_geo.models.registry import Model

SEAM = 0.5
"""[DN] what a pixel beyond the halo may change, when it changes by 1000 DN (the halo check)."""


_BUSY = 1 << 20  # pixels at once, at which every kernel of a network fills a large GPU


def map_tiles(
    model: Model,
    scene: Scene,
    plan: TilePlan | None = None,
    *,
    dtype: OutputType = "source",
    batch: int | None = None,
) -> GeoImage:
    """Restore a scene tile by tile, lazily.

    Nothing is read before the result is computed. One task restores one tile (or ``batch`` of
    them): it reads the tile and its halo, fills what has no data from the nearest pixels that have,
    runs the model and keeps the core. Pixels and ``valid`` come from that same task: compute them
    together (``dask.compute(image.pixels, image.valid)``, or one ``dask.array.store``), or the
    model runs twice. Memory is bounded by the tiles in flight, one per thread of the scheduler;
    where it is not enough for a batch or a tile, the half is tried, and so on (``tiling.fitting``).

    The values are DN as on disk, whatever the ``dtype``: the scene's ``add_offset`` is taken off
    again. Whole numbers are rounded half to even and clipped to their range. A valid pixel never
    holds the nodata value (it is moved by one), a pixel that is not valid always does (zero, or NaN
    in floats, where the scene names none; ``attrs["nodata"]`` is then missing).

    Args:
        model: what restores.
        scene: what is restored.
        plan: tiles made for this model and scene; ``TilePlan.for_model`` where None.
        dtype: type of the result; ``"source"`` is the scene's own.
        batch: most tiles of equal shape that go through the model together, as far as memory
            allows; where None one on a CPU, and on a GPU as many small ones as fill it.

    Returns:
        Pixels (band, y, x) and valid (y, x), dask-backed, one chunk per tile, on
        ``scene.grid.zoom(scale, aligned)``.

    Raises:
        BadOptionError: a plan that does not fit the model and scene (a halo too small, ...), an
            unknown ``dtype``, a ``batch`` below 1.
        BadInputError: the scene's bands are not the model's; when computing, the model looks, or
            the motion leads, beyond the halo, or the model gives values that are not finite.
    """
    spec = model.spec
    if spec.bands is not None and tuple(spec.bands) != tuple(scene.bands):
        raise BadInputError(
            f"{spec.name} takes the bands {', '.join(spec.bands)}, but the image has "
            f"{', '.join(scene.bands)}; read the bands it takes, in that order"
        )
    if batch is not None and batch < 1:
        raise BadOptionError(f"batch is {batch}; it must be at least 1")
    encoding = choose_encoding(scene, dtype)
    if plan is None:
        plan = TilePlan.for_model(spec, scene.grid.shape)
    else:
        plan.check(spec, scene.grid.shape)
    pixels, valid = _build_arrays(model, scene, plan, encoding, batch or _choose_batch(model, plan))
    attrs = {
        "model": spec.name,
        "weights_sha256": model.weights_sha256,
        "scale": spec.scale,
        "tile_size": plan.size,
        "tile_halo": plan.halo,
        "nodata": encoding.nodata,
    }
    attrs = {name: value for name, value in attrs.items() if value is not None}
    return GeoImage(
        xr.DataArray(
            pixels, dims=("band", "y", "x"), coords={"band": list(scene.bands)}, attrs=attrs
        ),
        scene.grid.zoom(spec.scale, spec.aligned),
        xr.DataArray(valid, dims=("y", "x")),
    )


def _build_arrays(
    model: Model, scene: Scene, plan: TilePlan, encoding: Encoding, batch: int
) -> tuple[da.Array, da.Array]:
    """The graph: model, scene and plan once, one call per batch, two items per tile."""
    token = uuid4().hex
    names = ("model", "scene", "plan", "encoding", "statistics")
    keys = tuple(f"{name}-{token}" for name in names)
    inputs: dict[Any, Any] = dict(zip(keys, (model, scene, plan, encoding, None), strict=True))
    if len(plan) > 1:  # one tile has no seams
        unchecked = f"unchecked-{keys[0]}"
        inputs |= {unchecked: model, keys[0]: (_check_halo, unchecked, keys[2], len(scene.bands))}
        if model.spec.scene_statistics:
            inputs[keys[-1]] = (take_statistics, *keys[:3])
    restoring = name_restoration(
        repr(
            (model.spec, model.weights_sha256, model.precision, scene.bands, plan, encoding, batch)
        )
    )
    calls, pixels, valid = (f"{n}-{token}" for n in (restoring, "pixels", "valid"))
    call_graph: dict[Any, Any] = {}
    pixel_graph: dict[Any, Any] = {}
    valid_graph: dict[Any, Any] = {}
    columns = plan.tile_counts[1]
    for number, indices in enumerate(_batches(plan, batch)):
        call = (calls, number)
        call_graph[call] = (_restore_tiles, *keys, indices)
        for place, index in enumerate(indices):
            row, col = divmod(index, columns)
            pixel_graph[pixels, 0, row, col] = (take_tile, call, place, 0)
            valid_graph[valid, row, col] = (take_tile, call, place, 1)
    graph = HighLevelGraph(
        {f"inputs-{token}": inputs, calls: call_graph, pixels: pixel_graph, valid: valid_graph},
        {
            f"inputs-{token}": set(),
            calls: {f"inputs-{token}"},
            pixels: {calls},
            valid: {calls},
        },
    )
    rows, cols = plan.chunks
    bands = (len(scene.bands),)
    return (
        da.Array(graph, pixels, (bands, rows, cols), dtype=encoding.dtype),
        da.Array(graph, valid, (rows, cols), dtype=bool),
    )


def _choose_batch(model: Model, plan: TilePlan) -> int:
    """As many tiles as a GPU needs to be busy; a CPU is with one."""
    if model.torch_device.type != "cuda":
        return 1
    largest = max(tile.width * tile.height for tile in (plan[0].read, plan[len(plan) // 2].read))
    return max(1, min(_BUSY // largest, 16))


def _batches(plan: TilePlan, batch: int) -> Iterator[list[int]]:
    """Neighbouring tiles that are read in one shape, row by row, at most ``batch`` together."""
    for _, run in groupby(range(len(plan)), lambda index: plan[index].read.shape):
        alike = list(run)
        for start in range(0, len(alike), batch):
            yield alike[start : start + batch]


def _check_halo(model: Model, plan: TilePlan, bands: int) -> Model:
    """The model, once it is known not to look beyond the halo; measured once in each process."""
    radius = model.probe_halo(SEAM, bands)
    if radius > plan.halo:
        raise BadInputError(
            f"{model.spec.name} looks {radius} px around a pixel or farther, but the tile "
            f"halo is {plan.halo} px: tiles would not meet; plan with a larger halo, or with one "
            "tile"
        )
    return model


def _restore_tiles(
    model: Model,
    scene: Scene,
    plan: TilePlan,
    encoding: Encoding,
    statistics: Any,
    indices: list[int],
) -> list[tuple[npt.NDArray[Any], BoolArray]]:
    """The work: pixels (band, y, x) and valid (y, x) of the cores of tiles."""
    spec = model.spec
    tiles = [plan[index] for index in indices]
    shapes = [tile.core.scale(plan.scale).shape for tile in tiles]
    restored = [np.zeros((len(scene.bands), *shape), np.float32) for shape in shapes]
    valid = [np.zeros(shape, bool) for shape in shapes]
    ready: dict[int, Piece] = {}
    for i, tile in enumerate(tiles):
        views = read_views(scene, tile.read)
        valid[i] = find_valid(views, tile, plan, uses_flow=spec.flow)
        if valid[i].any():  # what has no data costs no forward
            filled = fill_views(scene, plan, tile.read, views, gaps=spec.exposures)
            ready[i] = Piece(tile, filled)
    if ready:
        restoration = Restoration(model, scene, plan, statistics)
        cores = restoration.restore(list(ready.values()))
        for i, core in zip(ready, cores, strict=True):
            restored[i] = core
            _check_finite(core, valid[i], tiles[i], spec.name)
    return [(encoding.encode(r, v), v) for r, v in zip(restored, valid, strict=True)]


def _check_finite(
    restored: npt.NDArray[np.float32], valid: BoolArray, tile: Tile, name: str
) -> None:
    bad = int((~np.isfinite(restored) & valid).sum())
    if bad:
        raise BadInputError(
            f"{name} gave {bad} values that are not finite in the tile at column "
            f"{tile.core.col_off}, row {tile.core.row_off}, where its input is; "
            "check the weights, or use precision fp32"
        )
