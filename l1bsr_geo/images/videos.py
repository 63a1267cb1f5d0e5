"""Frames in order of time: what denoising reads, one frame at a time."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.pixels import is_data


@runtime_checkable
class Video(Protocol):
    """Frames of one size and type, in order of time. Reading keeps nothing."""

    @property
    def frames(self) -> int:
        """How many there are."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in the order of axis C."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of every frame."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels as they are stored."""
        ...

    @property
    def nodata(self) -> float | None:
        """The stored value that means no data."""
        ...

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it: (C, H, W) [DN], NaN where there is no data."""
        ...

    def grid(self, t: int) -> GeoGrid:
        """The geometry of a frame; its model is None where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayVideo:
    """An array in memory, or one that is read where it is sliced, as a video.

    Attributes:
        pixels: (T, C, H, W), or (T, H, W) of one band; numpy, or what slices like it.
        bands: names; ``"1"``, ``"2"`` ... by default.
        nodata: the value that means no data; NaN always does.
        grids: one geometry for all frames, one for each, or none.

    Raises:
        BadInputError: another number of axes, no pixels, or no real numbers.
    """

    pixels: Any
    bands: tuple[str, ...] = ()
    nodata: float | None = None
    grids: tuple[GeoGrid, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.pixels.shape), np.dtype(self.pixels.dtype)
        if len(shape) not in (3, 4) or 0 in shape:
            raise BadInputError(
                f"a video of shape {shape}; (time, band, y, x) or (time, y, x) was expected, with "
                "at least one of each"
            )
        if dtype.kind not in "uif":
            raise BadInputError(f"a video of {dtype}; real numbers were expected")
        count = shape[1] if len(shape) == 4 else 1
        if not self.bands:
            object.__setattr__(self, "bands", tuple(str(i + 1) for i in range(count)))
        if len(self.bands) != count:
            raise BadInputError(f"a video of {count} bands was given {len(self.bands)} names")
        if len(self.grids) not in (0, 1, shape[0]):
            raise BadInputError(f"{len(self.grids)} geometries of {shape[0]} frames; one for each")

    @property
    def frames(self) -> int:
        """How many there are."""
        return int(self.pixels.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width = self.pixels.shape[-2:]
        return int(height), int(width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        dtype: np.dtype[Any] = np.dtype(self.pixels.dtype)
        return dtype

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it: (C, H, W) [DN], NaN where there is no data."""
        check_frame(t, self.frames)
        rows, columns = (window or Window(0, 0, *self.shape[::-1])).slices
        raw = np.asarray(self.pixels[t, ..., rows, columns])
        return mask_pixels(raw.reshape(-1, *raw.shape[-2:]), self.nodata)

    def grid(self, t: int) -> GeoGrid:
        """The geometry of a frame."""
        check_frame(t, self.frames)
        if not self.grids:
            return GeoGrid(self.shape)
        return self.grids[t if len(self.grids) > 1 else 0]


@dataclass(frozen=True, eq=False)
class VideoOf:
    """A video that is made of another; what it does not change is the other's.

    Attributes:
        video: the other.
    """

    video: Video

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.video.frames

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names."""
        return self.video.bands

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.video.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type as stored."""
        return self.video.dtype

    @property
    def nodata(self) -> float | None:
        """The stored value that means no data."""
        return self.video.nodata

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it: (C, H, W) [DN], NaN where there is no data."""
        return self.video.read(t, window)

    def grid(self, t: int) -> GeoGrid:
        """The geometry of a frame."""
        return self.video.grid(t)


@dataclass(frozen=True, eq=False)
class ChosenFrames(VideoOf):
    """Some frames of a video, as a video.

    Attributes:
        video: all of them.
        chosen: which, in order of time.
    """

    chosen: range

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.chosen)

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it."""
        check_frame(t, self.frames)
        return self.video.read(self.chosen[t], window)

    def grid(self, t: int) -> GeoGrid:
        """The geometry of a frame."""
        check_frame(t, self.frames)
        return self.video.grid(self.chosen[t])


def check_frame(t: int, frames: int) -> None:
    """Refuse a frame that is not there.

    Raises:
        BadOptionError: as said.
    """
    if not 0 <= t < frames:
        raise BadOptionError(f"there is no frame {t} in a video of {frames}")


def mask_pixels(raw: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.float32]:
    """Stored pixels as float32 [DN], NaN where there is no data."""
    pixels = raw.astype(np.float32)
    pixels[~is_data(raw, nodata)] = np.nan
    return pixels
