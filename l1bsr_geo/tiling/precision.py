"""Whether half the bits are enough for a scene: decided once, by trying them on a piece of it."""

from __future__ import annotations

import logging
from math import inf, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from l1bsr_geo.images.pixels import Scene, Views
from l1bsr_geo.models.precision import multiplies_bf16
from l1bsr_geo.tiling.nodata import fill_views
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.statistics import read_sample

if TYPE_CHECKING:
    from l1bsr_geo.models.devices import Pixels
    from l1bsr_geo.models.registry import Model

log = logging.getLogger(__name__)

CLOSE_DB = 60.0
"""PSNR [dB] between the results of both precisions from which they count as alike."""

CLOSE_DN = 0.5
"""[DN] root mean square difference up to which they do, where pixels are whole numbers."""

PEAK = {1: 255.0, 2: 4095.0, 4: 4095.0}
"""Bytes of a whole number to the peak that the PSNR is of [DN]; more than 12 bits no sensor has."""

_SIDE = 48  # [px] of the sample, without its halo
_TRIES = 16  # places where data are looked for


def settle_precision(model: Model, scene: Scene, plan: TilePlan | None = None) -> Model:
    """The model at the precision that ``"auto"`` means for a scene: never ``"auto"`` itself.

    It is bf16 where the hardware multiplies it and the result on a sample of the scene is like that
    of fp32. No time is taken: the same scene, model and machine always give the same answer, so
    that a run that is taken up again goes on as it began. To be asked once for a job, before its
    work is given to others.

    Args:
        model: what restores.
        scene: what will be restored.
        plan: its tiles; ``TilePlan.for_model`` where None.

    Raises:
        BadInputError: as ``Model.restore``.
    """
    if model.precision != "auto":
        return model
    if not multiplies_bf16(model.torch_device):
        log.info("fp32 restores: this %s does not multiply bf16", model.torch_device.type)
        return model.at_precision("fp32")
    half = model.at_precision("bf16")
    plan = TilePlan.for_model(model.spec, scene.grid.shape) if plan is None else plan
    sample = _read_sample(scene, plan, gaps=model.spec.exposures)
    if sample is None:
        log.info("fp32 restores: no data were found to try bf16 on")
        return model.at_precision("fp32")
    exact, coarse = _restore(model.at_precision("fp32"), sample), _restore(half, sample)
    rms, decibels = compare_results(exact, coarse, scene.dtype)
    figures = f"{rms:.2g} DN rms ({decibels:.0f} dB)"
    if decibels >= CLOSE_DB or (scene.dtype.kind in "iu" and rms <= CLOSE_DN):
        log.info("bf16 restores: differs from fp32 by %s", figures)
        return half
    log.info("fp32 restores: bf16 differs by %s", figures)
    return model.at_precision("fp32")


def compare_results(exact: Pixels, coarse: Pixels, dtype: np.dtype[Any]) -> tuple[float, float]:
    """How far one result is from another: root mean square [DN] and PSNR [dB].

    The peak is that of whole numbers' type (``PEAK``); of floats, which may be in any unit, it is
    what all but a thousandth of the exact result stays below.

    Args:
        exact: the result.
        coarse: another one of the same shape.
        dtype: of the scene on disk.
    """
    rms = float(np.sqrt(np.mean(np.square(coarse - exact, dtype=np.float64))))
    known = PEAK.get(dtype.itemsize) if dtype.kind in "iu" else None
    peak = float(np.quantile(np.abs(exact), 0.999)) if known is None else known
    if rms == 0:
        return rms, inf
    return rms, 20 * log10(peak / rms) if peak > 0 and np.isfinite(rms) else -inf


def _read_sample(scene: Scene, plan: TilePlan, *, gaps: bool) -> Views | None:
    """The middle of a tile with data, near the image's own, as a model takes it."""
    rows, cols = plan.tile_counts
    row, col = (axis.ravel() for axis in np.indices((rows, cols)))
    order = np.argsort((row - (rows - 1) / 2) ** 2 + (col - (cols - 1) / 2) ** 2, kind="stable")
    some = np.unique(np.linspace(0, len(order) - 1, min(_TRIES, len(order))).astype(int))
    found = read_sample(scene, plan, order[some].tolist(), _SIDE)
    return found and fill_views(scene, plan, *found, gaps=gaps)


def _restore(model: Model, views: Views) -> Pixels:
    flow, exposures = (None if v is None else v[None] for v in (views.flow, views.exposures))
    return model.restore(views.pixels[None], flow, exposures=exposures)
