"""Engines of xarray: ``xr.open_dataset(path, engine="s2-l1b" | "skysat-l1a")``.

xarray loads this module whenever it looks for an engine, so it loads nothing itself.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

if TYPE_CHECKING:
    import xarray as xr

_L1B = re.compile(r"S2[A-Z]_\w*MSIL1B_\w+\.SAFE(\.zip)?", re.IGNORECASE)
_FRAMES = "frame_index.csv"


class Sentinel2L1BBackend(BackendEntrypoint):
    """Bands of one detector of a Sentinel-2 L1B product, as ``dn`` (band, y, x)."""

    description = "Sentinel-2 L1B, one detector in sensor geometry (l1bsr_geo)"
    url = "https://pypi.org/project/l1bsr-geo"
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "mask_and_scale",
        "detector",
        "bands",
        "geometry",
        "gipp",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = False,
        detector: int | None = None,
        bands: str | Sequence[str] | None = None,
        geometry: str = "auto",
        gipp: str | os.PathLike[str] | None = None,
    ) -> "xr.Dataset":
        """Open one detector, reading no pixel.

        Args:
            filename_or_obj: SAFE folder, .zip of it, an xml inside it, or EOPF Zarr.
            drop_variables: names to leave out.
            mask_and_scale: float32, NaN where there is no data; DN as on disk by default.
            detector: 1 to 12; not needed where there is only one.
            bands: names, or "B02,B03", of one resolution; B02 B03 B04 B08 by default.
            geometry: "grids", "model", "footprint", or "auto" for the first there.
            gipp: folder of GIPP files for the instrument model.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.readers.datasets import open_detector

        dataset = open_detector(
            filename_or_obj, detector=detector, bands=bands, geometry=geometry, gipp=gipp
        )
        return _finish(dataset, drop_variables, mask_and_scale)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Only what is named as a product of this level is."""
        name = _name(filename_or_obj)
        return _L1B.fullmatch(name) is not None or name == "MTD_MSIL1B.xml"


class SkySatL1ABackend(BackendEntrypoint):
    """Frames of a SkySat burst, as ``dn`` (time, y, x), in order of time."""

    description = "SkySat L1A push-frame bursts in sensor geometry (l1bsr_geo)"
    url = "https://pypi.org/project/l1bsr-geo"
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "mask_and_scale",
        "camera",
        "start",
        "frames",
        "reference",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = False,
        camera: str | int | None = None,
        start: int | str | None = None,
        frames: int = 15,
        reference: str | int = "middle",
    ) -> "xr.Dataset":
        """Open a burst; its frames are looked through once, since a damaged one spoils a result.

        Args:
            filename_or_obj: folder of frames, a frame, a frame_index.csv, or a stack.
            drop_variables: names to leave out.
            mask_and_scale: float32, NaN where there is no data; DN as on disk by default.
            camera: such as "c2"; not needed where there is only one.
            start: first frame, by running number or name.
            frames: how many, at most.
            reference: "middle", "first" or a frame's place in time, from 0.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.readers.datasets import open_burst

        dataset = open_burst(
            filename_or_obj, camera=camera, start=start, frames=frames, reference=reference
        )
        return _finish(dataset, drop_variables, mask_and_scale)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Only the table of frames, or the folder that it is in, is."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.fspath(filename_or_obj)
        return os.path.basename(path) == _FRAMES or os.path.isfile(os.path.join(path, _FRAMES))


def _name(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        return ""
    return os.path.basename(os.fspath(path).rstrip("/\\"))


def _finish(
    dataset: "xr.Dataset", dropped: str | Iterable[str] | None, mask_and_scale: bool
) -> "xr.Dataset":
    """Without the variables that are not wanted, decoded if asked for; the accessor comes along."""
    import xarray as xr

    import l1bsr_geo.accessor  # noqa: F401 (registers it)

    names = [dropped] if isinstance(dropped, str) else list(dropped or ())
    dataset = dataset.drop_vars(names, errors="ignore")
    return xr.decode_cf(dataset, decode_times=False) if mask_and_scale else dataset
