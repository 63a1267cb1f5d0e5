"""Pixels with their geometry: what readers give, tiling asks, and outputs are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import xarray as xr

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window


@runtime_checkable
class PixelSource(Protocol):
    """One band on disk, read by windows. Picklable: it holds paths, not open files."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        ...

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window that lies inside the image, (height, width)."""
        ...


@dataclass(frozen=True)
class Views:
    """What a restorer is given of one window.

    Attributes:
        pixels: (T, C, H, W) float32 [DN, zero means no light], anything where not ``valid``.
        valid: (T, C, H, W) bool; False where the product has no data.
        flow: (T, C, 2, H, W) float32 [px] or None: pixel p of the reference reads band c of frame t
            at p + flow(p), components (dx, dy).
        exposures: (T,) exposure times, in one unit for all frames, or None where they are alike.
    """

    pixels: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    flow: npt.NDArray[np.float32] | None = None
    exposures: npt.NDArray[np.float32] | None = None


@runtime_checkable
class Scene(Protocol):
    """All that tiling asks of an input. Picklable."""

    @property
    def grid(self) -> GeoGrid:
        """The reference grid; every view is read on it."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in the order of axis C."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels on disk."""
        ...

    @property
    def add_offset(self) -> tuple[float, ...]:
        """Per band, what was added to the DN on disk to make zero mean no light."""
        ...

    @property
    def nodata(self) -> float | None:
        """The value on disk that means no data."""
        ...

    def read(self, window: Window) -> Views:
        """The views of a window inside ``grid``."""
        ...


@dataclass(frozen=True)
class GeoImage:
    """An image and where it is; what every step takes and gives.

    Attributes:
        pixels: (band, y, x), usually dask-backed; ``band`` holds names; ``attrs`` describe.
        grid: its geometry; ``grid.shape`` equals the last two axes.
        valid: (y, x) bool, aligned with ``pixels``, or None where every pixel is valid.
    """

    pixels: xr.DataArray
    grid: GeoGrid
    valid: xr.DataArray | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in order."""
        return tuple(str(b) for b in self.pixels.coords["band"].values)


@dataclass(frozen=True)
class BandStack:
    """Bands of one acquisition, each on its own grid, unread.

    Attributes:
        sources: band name to pixels on disk, in the order asked for.
        grids: band name to geometry.
        reference: the band that results are aligned to.
        add_offset: band name to what must be added to DN on disk so that zero means no light.
        nodata: the value on disk that means no data, or None.
        saturated: the value on disk that means saturated, or None.
        attrs: product facts (product, platform, time, angles, wavelengths, noise model ...).
    """

    sources: Mapping[str, PixelSource]
    grids: Mapping[str, GeoGrid]
    reference: str
    add_offset: Mapping[str, float] = field(default_factory=dict)
    nodata: float | None = None
    saturated: float | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in order."""
        return tuple(self.sources)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the reference band."""
        return self.grids[self.reference].shape

    def only(self, band: str) -> Self:
        """The stack of one band, its own reference."""
        return replace(
            self,
            sources={band: self.sources[band]},
            grids={band: self.grids[band]},
            reference=band,
        )

    def crop(self, window: Window) -> Self:
        """The stack of a window of the reference grid; every band must have that grid's shape."""
        return self._moved(dict.fromkeys(self.bands, window))

    def shift(self, offsets: Mapping[str, tuple[int, int]]) -> Self:
        """The stack with whole-pixel offsets taken out, so that bands agree to half a pixel.

        Args:
            offsets: band name to (dx, dy): reference pixel p reads the band at p + offset; bands
                that are not named stay. What comes from outside a band is no data.
        """
        whole = self.grids[self.reference].window
        known = self if self.nodata is not None else replace(self, nodata=0)
        return known._moved({b: whole.shift(*offsets.get(b, (0, 0))) for b in self.bands})

    def _moved(self, windows: Mapping[str, Window]) -> Self:
        for band, grid in self.grids.items():
            if grid.shape != self.shape:
                raise BadInputError(
                    f"band {band} has {grid.shape[0]} x {grid.shape[1]} pixels and the reference "
                    f"{self.reference} {self.shape[0]} x {self.shape[1]}; choose bands of one "
                    "resolution with --bands"
                )
        fill = 0 if self.nodata is None else self.nodata
        return replace(
            self,
            sources={b: SourceWindow(s, windows[b], fill) for b, s in self.sources.items()},
            grids={b: g.crop(windows[b]) for b, g in self.grids.items()},
        )


@dataclass(frozen=True)
class SourceWindow:
    """A window of a source, as a source; what lies outside the source is filled.

    Attributes:
        source: what is read.
        window: which part of it; may reach outside.
        fill: value outside.
    """

    source: PixelSource
    window: Window
    fill: float = 0

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the window."""
        return self.window.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.source.dtype

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window of this window."""
        wanted = window.shift(self.window.col_off, self.window.row_off)
        there = wanted.intersect(Window(0, 0, self.source.shape[1], self.source.shape[0]))
        if there == wanted:
            return self.source.read(wanted)
        out = np.full(wanted.shape, self.fill, self.dtype)
        if there.width and there.height:
            out[there.shift(-wanted.col_off, -wanted.row_off).slices] = self.source.read(there)
        return out


@dataclass(frozen=True, kw_only=True)
class DetectorCrop(BandStack):
    """A stretch of one Sentinel-2 detector's strip.

    Attributes:
        detector: 1 to 12.
        first_line: row of the detector strip (10 m lines, 0-based) that is the crop's first.
    """

    detector: int
    first_line: int = 0

    def crop(self, window: Window) -> Self:
        """The crop of a window of the reference grid, with the line and time where it begins."""
        lines = window.row_off * self.attrs.get("resolution", {}).get(self.reference, 10) // 10
        attrs = dict(self.attrs)
        if "line_period" in attrs and "time" in attrs:
            start = datetime.fromisoformat(attrs["time"].replace("Z", "+00:00"))
            start += timedelta(seconds=lines * attrs["line_period"])
            attrs["time"] = start.isoformat().replace("+00:00", "Z")
        cropped = super().crop(window)
        return replace(cropped, first_line=self.first_line + lines, attrs=attrs)


@dataclass(frozen=True)
class DetectorOverlap:
    """The same ground in two neighbouring detectors."""

    left: DetectorCrop
    right: DetectorCrop


@dataclass(frozen=True)
class FlowField:
    """A smooth flow of every band to the reference, sampled at nodes of the reference grid.

    Attributes:
        nodes: (C, 2, rows, columns) float32 [px], (dx, dy): reference pixel p reads band c at
            p + flow(p).
        step: node spacing [px].
        origin: ``(x, y)`` of the first node, in pixel coordinates of the reference grid.
    """

    nodes: npt.NDArray[np.float32]
    step: float
    origin: tuple[float, float] = (0.0, 0.0)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """The flow at every pixel centre of a window, (C, 2, height, width), bilinear."""
        x = (np.arange(window.width) + window.col_off + 0.5 - self.origin[0]) / self.step
        y = (np.arange(window.height) + window.row_off + 0.5 - self.origin[1]) / self.step
        rows, cols = self.nodes.shape[-2:]
        return _lerp(_lerp(self.nodes, y, rows, -2), x, cols, -1)


def _lerp(
    values: npt.NDArray[np.float32], at: npt.NDArray[np.floating[Any]], count: int, axis: int
) -> npt.NDArray[np.float32]:
    at = np.clip(at, 0, count - 1)
    i = np.minimum(at.astype(np.intp), max(count - 2, 0))
    shape = (-1, 1) if axis == -2 else (-1,)
    w = (at - i).astype(np.float32).reshape(shape)
    after = np.take(values, np.minimum(i + 1, count - 1), axis)
    return np.asarray(np.take(values, i, axis) * (1 - w) + after * w, np.float32)


@dataclass(frozen=True, eq=False)
class BurstFlow:
    """The motion of every frame of a burst: reference pixel p reads frame t at p + flow_t(p).

    ``flow_t(p) = offsets[t] + affine[t] @ (x - centre x, y - centre y, 1) + dense_t(p)``.

    Attributes:
        offsets: (T, 2) int (dx, dy): whole pixels; a frame moved by them lies on the reference to
            about a pixel.
        affine: (T, 2, 3) float64: what is left, rows dx and dy [px]; zero for the reference and NaN
            for a frame that was rejected, so that its motion cannot be used by mistake.
        centre: ``(x, y)`` about which the affine is written.
        dense: a smooth remainder (relief), frames along the first axis of its nodes; or None.
        uncertainty: (T,) expected error of the motion [px], infinite where rejected.
        rejected: frame index to the reason why it must not be used.
    """

    offsets: npt.NDArray[np.int64]
    affine: npt.NDArray[np.float64]
    centre: tuple[float, float]
    dense: FlowField | None = None
    uncertainty: npt.NDArray[np.float64] | None = None
    rejected: Mapping[int, str] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the frames that can be used, in order."""
        return tuple(t for t in range(len(self.offsets)) if t not in self.rejected)

    def select(self, frames: Sequence[int]) -> Self:
        """The flow of some of the frames, in the order given; ``select(flow.kept)`` is all good."""
        at = list(frames)
        return replace(
            self,
            offsets=self.offsets[at],
            affine=self.affine[at],
            dense=None if self.dense is None else replace(self.dense, nodes=self.dense.nodes[at]),
            uncertainty=None if self.uncertainty is None else self.uncertainty[at],
            rejected={i: self.rejected[t] for i, t in enumerate(at) if t in self.rejected},
        )

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """The whole motion at every pixel centre of a window, (T, 2, height, width) [px]."""
        return self.residual(window) + self.offsets[:, :, None, None].astype(np.float32)

    def residual(self, window: Window) -> npt.NDArray[np.float32]:
        """The motion beyond ``offsets``: what is left after frame t is read at the moved window."""
        x = np.arange(window.width) + (window.col_off + 0.5 - self.centre[0])
        y = np.arange(window.height) + (window.row_off + 0.5 - self.centre[1])
        a = self.affine[..., None, None]
        flow = (a[:, :, 0] * x + (a[:, :, 1] * y[:, None] + a[:, :, 2])).astype(np.float32)
        return flow if self.dense is None else flow + self.dense.read(window)


@dataclass(frozen=True)
class BandScene:
    """A BandStack as tiling reads it: one frame, zero-based DN, masks, flow to the reference.

    Attributes:
        stack: the bands.
        flow: motion of every band to the reference band, or None where nothing is known.
    """

    stack: BandStack
    flow: FlowField | None = None

    @property
    def grid(self) -> GeoGrid:
        """The reference band's grid."""
        return self.stack.grids[self.stack.reference]

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.stack.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk of the reference band."""
        return self.stack.sources[self.stack.reference].dtype

    @property
    def add_offset(self) -> tuple[float, ...]:
        """Per band, what ``read`` adds to the DN on disk."""
        return tuple(self.stack.add_offset.get(b, 0.0) for b in self.bands)

    @property
    def nodata(self) -> float | None:
        """The value on disk that means no data."""
        return self.stack.nodata

    def read(self, window: Window) -> Views:
        """The bands of a window, zero-based, with flow; neither no data nor saturated is valid."""
        raw = np.stack([self.stack.sources[b].read(window) for b in self.bands])
        valid = _is_data(raw, self.nodata)
        if self.stack.saturated is not None:  # of a value nobody knows: it must not bleed
            valid &= raw != self.stack.saturated
        offset = np.asarray(self.add_offset, np.float32)[:, None, None]
        flow = None if self.flow is None else self.flow.read(window)[None]
        return Views((raw.astype(np.float32) + offset)[None], valid[None], flow)


@dataclass(frozen=True)
class Burst:
    """Frames of the same ground, taken one after the other, unread.

    Frame 0 is the reference; the others follow in order of time.

    Attributes:
        sources: one frame each, all of one shape and type.
        grids: one geometry each; a frame without one has a grid whose model is None.
        exposures: exposure times [ms], or relative to each other where the unit is not known.
        times: UTC, one for each frame; empty where the files do not tell.
        band: what results are named.
        nodata: the value on disk that means no data, or None.
        saturated: from this value on a pixel may have received more light than it tells, or None.
            Such pixels are data all the same: they are not masked.
        attrs: product facts. ``frames``: the frames' names in the order of ``sources``.
            ``order``: which frame in time each of them is. ``dropped``: name to reason.
    """

    sources: tuple[PixelSource, ...]
    grids: tuple[GeoGrid, ...]
    exposures: tuple[float, ...]
    times: tuple[datetime, ...] = ()
    band: str = "PAN"
    nodata: float | None = None
    saturated: float | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        return self.grids[0].shape

    def select(self, frames: Sequence[int]) -> Self:
        """The burst of some of its frames, in the order given; the first is the reference."""
        listed = {
            key: tuple(self.attrs[key][i] for i in frames)
            for key in ("frames", "order")
            if key in self.attrs
        }
        return replace(
            self,
            sources=tuple(self.sources[i] for i in frames),
            grids=tuple(self.grids[i] for i in frames),
            exposures=tuple(self.exposures[i] for i in frames),
            times=tuple(self.times[i] for i in frames) if self.times else (),
            attrs={**self.attrs, **listed},
        )


@dataclass(frozen=True)
class BurstScene:
    """A Burst as tiling reads it: every frame at the place of the reference, to a pixel or so.

    Attributes:
        burst: the frames.
        flow: motion of every frame to the reference, or None where they are registered already.
    """

    burst: Burst
    flow: BurstFlow | None = None

    @property
    def grid(self) -> GeoGrid:
        """The reference frame's grid."""
        return self.burst.grids[0]

    @property
    def bands(self) -> tuple[str, ...]:
        """The one band."""
        return (self.burst.band,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.burst.sources[0].dtype

    @property
    def add_offset(self) -> tuple[float, ...]:
        """Zero: DN of no light are zero already."""
        return (0.0,)

    @property
    def nodata(self) -> float | None:
        """The value on disk that means no data."""
        return self.burst.nodata

    def read(self, window: Window) -> Views:
        """The frames of a window, each moved by its whole-pixel offset, with the rest as flow.

        A pixel that its frame does not reach is not valid; nothing of a rejected frame is.
        """
        shape = (len(self.burst), *window.shape)
        pixels, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        kept = range(len(self.burst)) if self.flow is None else self.flow.kept
        for t in kept:
            dx, dy = (0, 0) if self.flow is None else map(int, self.flow.offsets[t])
            wanted = window.shift(dx, dy)
            there = wanted.intersect(self.grid.window)
            if there.width and there.height:
                inside = there.shift(-wanted.col_off, -wanted.row_off).slices
                raw = self.burst.sources[t].read(there)
                pixels[t][inside], valid[t][inside] = raw, _is_data(raw, self.nodata)
        flow = None if self.flow is None else self.flow.residual(window)[:, None]
        exposures = np.asarray(self.burst.exposures, np.float32)
        return Views(pixels[:, None], valid[:, None], flow, exposures)


def _is_data(raw: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    valid = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
    return valid if nodata is None else valid & (raw != nodata)
