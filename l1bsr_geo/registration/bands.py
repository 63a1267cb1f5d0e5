"""A smooth dense flow of every band to the reference band: from geometry, then from the images."""

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.registration.local import CELL
from l1bsr_geo.registration.smooth import Measurements, fit_field
from l1bsr_geo.registration.stretch import measure_stretch

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

_SAME_GRID = 1e-3  # [px] of rounding
_SMALLEST = 24  # [px] nothing can be matched in less


def geometric_flow(
    stack: BandStack, *, step: float = 16.0, elevation: Elevation | None = None
) -> FlowField:
    """The flow that the bands' geometries foretell.

    Args:
        stack: every band with a geometry, all of one pixel size.
        step: node spacing [px].
        elevation: the ground; height 0 by default. 100 m of error move Sentinel-2's bands by
            0.05 to 0.09 px against each other.

    Returns:
        Nodes from (0, 0) to the far corner or just beyond.

    Raises:
        BadInputError: A band has no geometry, or another shape than the reference.
    """
    _check(stack)
    reference = stack.grids[stack.reference]
    y, x = (np.arange(n) * step for n in _node_counts(reference.shape, step))
    xx, yy = np.meshgrid(x, y)
    lon, lat, h = localize_on_terrain(reference, xx, yy, elevation or ConstantElevation())
    nodes = np.zeros((len(stack.bands), 2, *xx.shape), np.float32)
    for flow, band in zip(nodes, stack.bands, strict=True):
        if band != stack.reference:
            px, py = stack.grids[band].project(lon, lat, h)
            flow[:] = px - xx, py - yy
    return FlowField(nodes, step)


def register_bands(
    stack: BandStack,
    *,
    prior: FlowField | None = None,
    elevation: Elevation | None = None,
    search: int | None = None,
    step: float = 16.0,
    lines: int = 512,
) -> FlowField:
    """Measure the flow of every band to the reference band.

    Stretches of ``lines`` lines are read one after the other. In each, phase correlation of
    gradient orientations finds the displacement of overlapping blocks, whatever the contrast; local
    least squares refines it (`l1bsr_geo.registration.local`). One smooth field per band then
    explains the measurements of all stretches.

    Args:
        stack: the bands, all of the reference's shape.
        prior: what is known already; by default `geometric_flow` where the bands' geometries
            differ, else zero. The images correct it smoothly, and where they show nothing it stays.
        elevation: for the default prior.
        search: largest displacement from the prior [px], at most 15; 12 by default, 4 with a prior.
        step: node spacing [px] of the result; the prior's where that is finer.
        lines: read and measured at a time, about; memory is in proportion.

    Returns:
        The flow; exactly zero for the reference.

    Raises:
        BadInputError: The bands have different shapes, or the prior another number of bands.
        BadOptionError: ``search`` is not from 1 to 15, or ``lines`` below 64.

    Warns:
        L1bsrGeoWarning: A band could not be matched anywhere; its prior is returned.
    """
    shape = _check(stack)
    if prior is None and all(stack.grids[b].model is not None for b in stack.bands):
        foretold = geometric_flow(stack, step=step, elevation=elevation)
        # one grid for all bands (a map raster) says nothing about how they are displaced
        prior = foretold if np.abs(foretold.nodes).max() > _SAME_GRID else None
    search = search if search is not None else (12 if prior is None else 4)
    if not 1 <= search <= 15:
        raise BadOptionError(f"search is {search} px; it must be from 1 to 15")
    if lines < 64:
        raise BadOptionError(
            f"lines is {lines}; it must be at least 64, to see anything in a stretch"
        )
    base = _start(stack, shape, prior, step)
    y, x = (np.arange(n) * base.step for n in base.nodes.shape[2:])
    measured: dict[str, list[Measurements]] = {b: [] for b in stack.bands if b != stack.reference}
    if min(shape) >= _SMALLEST:
        for window in _stretches(shape, lines):
            for band, found in measure_stretch(stack, base, window, search).items():
                measured[band].append(found)
    whole = {band: Measurements.join(parts) for band, parts in measured.items() if parts}
    ground: F64 = np.ones((1, 1))
    nodes = base.nodes.copy()
    # what moves against the field of one band (cloud, water) is not ground in the next either
    for band in sorted(whole, key=lambda b: -whole[b].info.sum()):
        if whole[band].info.any():
            field, believed = fit_field(whole[band].scaled(ground), shape)
            ground = ground * believed
            nodes[stack.bands.index(band)] += field.at(y, x)
    for band in measured:
        if band not in whole or not whole[band].info.any():
            _warn_unmatched(band, stack.reference, shape, prior)
    return FlowField(nodes, base.step)


def _start(
    stack: BandStack, shape: tuple[int, int], prior: FlowField | None, step: float
) -> FlowField:
    """The prior, or zero, on the nodes of the result."""
    if prior is not None:
        if len(prior.nodes) != len(stack.bands):
            raise BadInputError(
                f"the prior flow has {len(prior.nodes)} bands and the stack {len(stack.bands)} "
                f"({', '.join(stack.bands)}); give one flow per band, in their order"
            )
        step = min(step, prior.step)
    rows, cols = _node_counts(shape, step)
    nodes = np.zeros((len(stack.bands), 2, rows, cols), np.float32)
    if prior is not None:
        nodes[:] = _sample(prior, np.arange(rows) * step, np.arange(cols) * step)
        nodes[stack.bands.index(stack.reference)] = 0
    return FlowField(nodes, step)


def _stretches(shape: tuple[int, int], lines: int) -> Iterator[Window]:
    """Windows of full width and about equal height, on cell boundaries."""
    count = max(1, round(shape[0] / lines))
    edges = np.rint(np.linspace(0, shape[0], count + 1) / CELL).astype(int) * CELL
    edges[-1] = shape[0]
    for top, bottom in pairwise(edges):
        yield Window(0, int(top), shape[1], int(bottom - top))


def _node_counts(shape: tuple[int, int], step: float) -> tuple[int, int]:
    height, width = shape
    return int(np.ceil(height / step)) + 1, int(np.ceil(width / step)) + 1


def _sample(field: FlowField, y: Floats, x: Floats) -> F32:
    """A flow field at the grid of rows ``y`` and columns ``x``, (C, 2, len(y), len(x))."""
    at = np.meshgrid(
        (y - field.origin[1]) / field.step, (x - field.origin[0]) / field.step, indexing="ij"
    )
    flat = field.nodes.reshape(-1, *field.nodes.shape[-2:])
    out = [ndimage.map_coordinates(n, at, np.float32, 1, "nearest") for n in flat]
    return np.asarray(np.stack(out).reshape(*field.nodes.shape[:2], len(y), len(x)), np.float32)


def _check(stack: BandStack) -> tuple[int, int]:
    """The shape of all bands."""
    shape = stack.grids[stack.reference].shape
    for band in stack.bands:
        if stack.grids[band].shape != shape:
            raise BadInputError(
                f"band {band} has {stack.grids[band].shape} pixels and the reference "
                f"{stack.reference} {shape}; bands are registered at one pixel size: read bands of "
                "the same resolution and extent"
            )
    return shape


def _warn_unmatched(
    band: str, reference: str, shape: tuple[int, int], prior: FlowField | None
) -> None:
    kept = "zero displacement is assumed" if prior is None else "its prior flow is kept as it is"
    warnings.warn(
        f"band {band} could not be matched to {reference} anywhere in {shape[1]} x {shape[0]} "
        f"pixels (too small, without texture, or no data); {kept}",
        L1bsrGeoWarning,
        stacklevel=3,
    )
