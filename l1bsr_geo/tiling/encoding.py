"""From restored values to the numbers that are stored."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.images.pixels import Scene
from l1bsr_geo.tiling.nodata import BoolArray

OutputType: TypeAlias = Literal["source", "float32", "uint16"]


@dataclass(frozen=True)
class Encoding:
    """How restored values are stored: DN as on disk.

    Attributes:
        dtype: the type stored.
        nodata: what a pixel without data holds and no other does; None where nothing is declared.
        add_offset: per band, what is taken off the restored, zero-based values.
    """

    dtype: np.dtype[Any]
    nodata: float | None
    add_offset: tuple[float, ...]

    def encode(self, restored: npt.NDArray[np.float32], valid: BoolArray) -> npt.NDArray[Any]:
        """Round half to even and clip (whole numbers only), keep clear of nodata.

        Args:
            restored: (C, H, W) [DN, zero means no light]; anything where not ``valid``.
            valid: (H, W).

        Returns:
            (C, H, W) [DN as on disk].
        """
        dn = np.where(valid, restored, 0).astype(np.result_type(self.dtype, np.float32))
        dn -= np.asarray(self.add_offset, dn.dtype)[:, None, None]
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            np.clip(np.rint(dn, out=dn), limits.min, limits.max, out=dn)
        encoded: npt.NDArray[Any] = dn.astype(self.dtype)
        if self.nodata is not None:
            encoded[encoded == self.nodata] = _neighbour(self.nodata, self.dtype)
        encoded[:, ~valid] = self._hole
        return encoded

    @property
    def _hole(self) -> float:
        if self.nodata is not None:
            return self.nodata
        return 0 if self.dtype.kind in "iu" else float("nan")


def choose_encoding(scene: Scene, dtype: OutputType) -> Encoding:
    """The encoding of a scene's result; its nodata is the scene's where the type can hold it.

    Raises:
        BadOptionError: a type that is not one of ``OutputType``.
    """
    if dtype not in get_args(OutputType):
        known = ", ".join(get_args(OutputType))
        raise BadOptionError(f"dtype is {dtype!r}; it must be one of {known}")
    target = np.dtype(scene.dtype if dtype == "source" else dtype)
    nodata = scene.nodata
    if nodata is not None and not _holds(target, nodata):
        nodata = 0.0 if target.kind in "iu" else float("nan")
    return Encoding(target, nodata, tuple(scene.add_offset))


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind == "f":
        return not np.isfinite(value) or float(np.asarray(value, dtype)) == value
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and value == int(value) and limits.min <= value <= limits.max


def _neighbour(nodata: float, dtype: np.dtype[Any]) -> float:
    """The value next to nodata that a valid pixel gets instead of it."""
    if dtype.kind == "f":
        return float(np.nextafter(np.asarray(nodata, dtype), np.asarray(np.inf, dtype)))
    return nodata - 1 if nodata == np.iinfo(dtype).max else nodata + 1
