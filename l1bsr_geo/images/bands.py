"""Bands of one acquisition: stacks, detector crops, and how tiling reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

import dask.array as da
import numpy as np
import xarray as xr

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.images.pixels import LazyPixels, PixelSource, SourceWindow, Views, is_data

_CHUNK = 1024  # [px] of lazy pixels


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

    @property
    def pixels(self) -> xr.DataArray:
        """The bands as on disk, (band, y, x), lazily: dask reads the chunks that are asked for.

        Raises:
            BadInputError: bands of several resolutions; take `only` one.
        """
        self.check_one_shape()
        layers = [
            da.from_array(LazyPixels(s), chunks=_CHUNK, asarray=False)
            for s in self.sources.values()
        ]
        coords = {"band": list(self.bands)}
        attrs = {k: v for k, v in self.attrs.items() if isinstance(v, str | int | float)}
        return xr.DataArray(da.stack(layers), coords, ("band", "y", "x"), attrs=attrs)

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
        self.check_one_shape()
        fill = 0 if self.nodata is None else self.nodata
        return replace(
            self,
            sources={b: SourceWindow(s, windows[b], fill) for b, s in self.sources.items()},
            grids={b: g.crop(windows[b]) for b, g in self.grids.items()},
        )

    def check_one_shape(self) -> None:
        """Refuse bands of several resolutions.

        Raises:
            BadInputError: as said.
        """
        for band, grid in self.grids.items():
            if grid.shape != self.shape:
                raise BadInputError(
                    f"band {band} has {grid.shape[0]} x {grid.shape[1]} pixels and the reference "
                    f"{self.reference} {self.shape[0]} x {self.shape[1]}; choose bands of one "
                    "resolution with --bands"
                )


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
        valid = is_data(raw, self.nodata)
        if self.stack.saturated is not None:  # of a value nobody knows: it must not bleed
            valid &= raw != self.stack.saturated
        offset = np.asarray(self.add_offset, np.float32)[:, None, None]
        flow = None if self.flow is None else self.flow.read(window)[None]
        return Views((raw.astype(np.float32) + offset)[None], valid[None], flow)


def describe_values(stack: BandStack) -> dict[str, Any]:
    """What the values mean: radiance from the gains of an L1B product, else what the file said."""
    told = ("wavelengths", "scale_factor", "add_offset", "units")
    attrs = {name: stack.attrs[name] for name in told if name in stack.attrs}
    gains = stack.attrs.get("physical_gains", {})
    if all(b in gains for b in stack.bands):
        # L = (DN + RADIO_ADD_OFFSET) / PHYSICAL_GAINS
        attrs["scale_factor"] = {b: 1 / gains[b] for b in stack.bands}
        attrs["add_offset"] = {b: stack.add_offset.get(b, 0.0) / gains[b] for b in stack.bands}
        attrs["units"] = "W m-2 sr-1 um-1"
    return attrs
