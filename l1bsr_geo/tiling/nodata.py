"""What a network must not see and what it must not be believed on: pixels without data."""

from dataclasses import replace
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import Scene, Views
from l1bsr_geo.tiling.plan import Tile, TilePlan

BoolArray = npt.NDArray[np.bool_]

_UNREAD = 1e-3  # [px] a bilinear tap lighter than this is not read: floats near whole pixels


def read_views(scene: Scene, window: Window) -> Views:
    """The views of a window; a motion that is not known is NaN.

    Raises:
        BadInputError: the scene gives another shape than was asked for.
    """
    views = scene.read(window)
    if views.pixels.shape[-2:] != window.shape:
        raise BadInputError(
            f"the scene gave {views.pixels.shape[-2:]} pixels for a window of {window.shape} at "
            f"column {window.col_off}, row {window.row_off}"
        )
    if views.flow is None:
        return views
    known = np.isfinite(views.flow)
    return views if known.all() else replace(views, flow=np.where(known, views.flow, np.nan))


def fill_nodata(pixels: npt.NDArray[np.float32], valid: BoolArray) -> npt.NDArray[np.float32]:
    """Replace what is not valid by the nearest valid pixel of its band.

    A convolution across the border then sees the image go on flatly instead of a cliff.

    Args:
        pixels: (T, C, H, W); anything, NaN too, where not valid.
        valid: (T, C, H, W).

    Returns:
        (T, C, H, W), finite. A later frame without one valid pixel becomes the first frame; a first
        frame's band without one becomes zero (nothing of it can be valid in the result).
    """
    if valid.all():
        return pixels
    filled = np.where(valid, pixels, np.float32(0))
    rows, cols = np.empty(0), np.empty(0)
    known: BoolArray | None = None  # the bands of a product mostly share one mask
    for frame, band in np.ndindex(valid.shape[:2]):
        mask = valid[frame, band]
        if mask.all():
            continue
        if not mask.any():
            filled[frame, band] = filled[0, band]
            continue
        if known is None or not np.array_equal(mask, known):
            rows, cols = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            known = mask
        filled[frame, band] = filled[frame, band][rows, cols]
    return filled


def fill_views(scene: Scene, plan: TilePlan, window: Window, views: Views, *, gaps: bool) -> Views:
    """Views without holes, as a model takes them.

    What the nearest valid pixel is must not depend on the tile, or tiles would not meet beside
    nodata: a hole within the halo of a valid pixel has its nearest one within sqrt(2) halos. Tiles
    with holes are therefore read once more, that much larger.

    Args:
        scene: where the views were read.
        plan: the scene's.
        window: that was read.
        views: what was read.
        gaps: fill the first frame only, and leave NaN where the others have no data.
    """
    flow = None if views.flow is None else np.nan_to_num(views.flow, nan=0.0)
    filling = slice(0, 1 if gaps else None)
    pixels = views.pixels
    if gaps:
        pixels = np.where(views.valid, pixels, np.float32(np.nan))
    if views.valid[filling].all():
        return replace(views, pixels=pixels, flow=flow)
    margin = ceil(sqrt(2) * (plan.halo + plan.multiple))
    wide = window.grow(margin).intersect(Window(0, 0, plan.shape[1], plan.shape[0]))
    around = views if wide == window else read_views(scene, wide)
    rows, cols = window.shift(-wide.col_off, -wide.row_off).slices
    filled = fill_nodata(around.pixels[filling], around.valid[filling])[:, :, rows, cols]
    pixels = np.concatenate([filled, pixels[len(filled) :]])
    return replace(views, pixels=pixels, flow=flow)


def find_valid(views: Views, tile: Tile, plan: TilePlan, *, uses_flow: bool) -> BoolArray:
    """Which pixels of a tile's result rest on data.

    A pixel of the result is valid where, in every band of the first frame, the input pixels under
    it are (one, or the two that it straddles where ``aligned="centre"``). Where the flow is used,
    it is the pixels that bilinear interpolation reads at the pixel's centre moved by the flow; what
    the flow moves out of the image is not valid.

    Args:
        views: what was read of ``tile.read``.
        tile: the tile.
        plan: its plan.
        uses_flow: whether the model moves the bands by ``views.flow``.

    Returns:
        (scale * core height, scale * core width).

    Raises:
        BadInputError: the flow reaches beyond the tile's read window, inside the image.
    """
    valid = views.valid[0]
    if uses_flow and views.flow is not None:
        return _valid_through_flow(valid, views.flow[0], tile, plan)
    crop, (height, width) = tile.crop, valid.shape[-2:]
    rows = _under(crop.row_off, crop.height, height, plan)
    cols = _under(crop.col_off, crop.width, width, plan)
    every: BoolArray = np.asarray(valid.all(0))
    every = np.all([every[i] for i in rows], 0)
    result: BoolArray = np.all([every[:, j] for j in cols], 0)
    return result


def _under(start: int, count: int, length: int, plan: TilePlan) -> list[npt.NDArray[np.intp]]:
    """Which of ``length`` coarse pixels the fine ones of ``count`` from ``start`` cover part of.

    One along each axis, or the first and the last of two.
    """
    fine, s = np.arange(count * plan.scale), plan.scale
    if plan.aligned == "corner":
        covered = [fine // s]
    else:
        covered = [(2 * fine + s - 1) // (2 * s), (2 * fine + s) // (2 * s)]
    return [np.minimum(i + start, length - 1) for i in covered]


def _valid_through_flow(
    valid: BoolArray, flow: npt.NDArray[np.float32], tile: Tile, plan: TilePlan
) -> BoolArray:
    known: BoolArray = np.asarray(np.isfinite(flow).all(1))
    flow = np.where(known[:, None], flow, np.float32(0))
    stays = check_reach(flow, tile, plan)
    core, crop = tile.core, tile.crop
    if stays and known.all() and valid.all():
        return np.ones(core.scale(plan.scale).shape, bool)
    i = _under(crop.row_off, crop.height, tile.read.height, plan)[0][:, None]
    j = _under(crop.col_off, crop.width, tile.read.width, plan)[0]
    top, left = tile.read.row_off, tile.read.col_off
    y = _centres(core.row_off, core.height, plan.shape[0], plan) - top
    x = _centres(core.col_off, core.width, plan.shape[1], plan) - left
    y, x = y.astype(np.float32)[:, None], x.astype(np.float32)  # small enough for single precision
    result = np.ones(core.scale(plan.scale).shape, bool)
    for band in range(len(valid)):
        at_x, at_y = x + flow[band, 0, i, j], y + flow[band, 1, i, j]
        result &= _inside(at_x, -left, plan.shape[1]) & _inside(at_y, -top, plan.shape[0])
        if not known[band].all():
            result &= known[band, i, j]
        if not valid[band].all():
            result &= _support(valid[band], at_x, at_y)
    return result


def _centres(start: int, count: int, length: int, plan: TilePlan) -> npt.NDArray[np.floating]:
    """Where fine pixels are along one axis [px]; whole numbers are centres of coarse pixels.

    The last fine pixel of ``aligned="centre"`` can lie beyond the image; it is held at its border.
    """
    fine = np.arange(count * plan.scale) + start * plan.scale
    at = fine / plan.scale if plan.aligned == "centre" else (fine + 0.5) / plan.scale - 0.5
    return np.minimum(at, length - 0.5)


def _inside(at: npt.NDArray[np.floating], start: int, length: int) -> BoolArray:
    return (at >= start - 0.5 - _UNREAD) & (at <= start + length - 0.5 + _UNREAD)


def _support(
    valid: BoolArray, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]
) -> BoolArray:
    """Whether the pixels around a point, in pixel centres of ``valid``, are all valid."""
    height, width = valid.shape

    def taps(at: npt.NDArray[np.floating], length: int) -> list[npt.NDArray[np.intp]]:
        ends = np.floor(at + _UNREAD), np.ceil(at - _UNREAD)
        return [np.clip(end, 0, length - 1).astype(np.intp) for end in ends]

    (x0, x1), (y0, y1) = taps(x, width), taps(y, height)
    return valid[y0, x0] & valid[y0, x1] & valid[y1, x0] & valid[y1, x1]


def check_reach(flow: npt.NDArray[np.float32], tile: Tile, plan: TilePlan) -> bool:
    """Whether all that the flow (C, 2, height, width) of a core reaches lies inside the image.

    Raises:
        BadInputError: it reaches beyond what was read.
    """
    core, read = tile.core, tile.read
    moved = flow[:, :, *tile.crop.slices]
    low, high = moved.min((0, 2, 3)), moved.max((0, 2, 3))
    reached = (
        (core.col_off + low[0], core.col_off + core.width + high[0], read.col_off, read.width),
        (core.row_off + low[1], core.row_off + core.height + high[1], read.row_off, read.height),
    )
    stays = True
    for (first, last, start, length), size in zip(reached, plan.shape[::-1], strict=True):
        if (first < start and start > 0) or (last > start + length and start + length < size):
            raise BadInputError(
                f"the motion in the tile at column {core.col_off}, row {core.row_off} is up to "
                f"{np.abs(moved).max():.1f} px, more than the {plan.halo} px of context that is "
                "read; plan with a larger halo"
            )
        stays &= bool(first >= 0 and last <= size)
    return stays
