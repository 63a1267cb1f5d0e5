"""The fixed test set of Sentinel-2 benchmarks: overlaps of ground that no network has seen.

Places are those of ``burst_set.py`` in aerial photographs, where no photograph that is trained on
reaches. The radiometry of a real crop is laid on a window around the place, as in training; then
two detectors see the place. The first eight overlaps show one place each, and so do the next eight,
with another crop's radiometry, other motion and other noise. Procedural ground without ../shared.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import rasterio
import torch

from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.registration.bands import register_bands
from l1bsr_geo.simulation.multiband import CROPS, bands_from_photograph, match_crop
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap
from l1bsr_geo.simulation.scenes import procedural_scene
from l1bsr_geo.training.objective import Batch
from tests.benchmarks.burst_set import SHARED, TEST, has_photographs

BANDS = ("B02", "B03", "B04", "B08")
SIZE = 112  # [px] of a view
COUNT = 24
PLACES = tuple(place for place in TEST if place.group in ("brighton", "seneca"))
KINDS = {  # alias and shift between the bands of a view, or not
    "full": {},
    "no-alias": {"alias": False},
    "no-shift": {"shifts": BandShifts(band_shift=0)},
    "neither": {"alias": False, "shifts": BandShifts(band_shift=0)},
}
_WINDOW = 640  # [5 m px]
_REDUCE = 2  # pixels of a photograph to one of 5 m


def read_overlaps(index, kinds=("full",), size=SIZE, noise=1.0):
    """Overlaps of one place that differ in nothing but their kind: always the same.

    Args:
        index: of the set, below ``COUNT`` or beyond.
        kinds: of ``KINDS``.
        size: [px] of the views.
        noise: times the instrument's.

    Returns:
        {kind: Batch of one}: views (1, 2, 4, H, W) [DN], flow, truth (1, 4, 2 H, 2 W).
    """
    scene = _scene(index, needed_scene((size, size), BandShifts()))
    shape = (size, size)
    made = {k: simulate_overlap(scene, shape, noise=noise, seed=index, **KINDS[k]) for k in kinds}
    return {
        kind: Batch(
            torch.from_numpy(m.views.astype(np.float32))[None],
            flow=torch.from_numpy(m.flow)[None],
            truth=torch.from_numpy(m.truth)[None],
        )
        for kind, m in made.items()
    }


def with_registration(batch):
    """The same with the flow that ``register_bands`` finds, each view by itself, no prior."""
    views = batch.views[0].numpy()
    first = _register(dict(zip(BANDS, views[0], strict=True)))
    others = {f"other {name}": band for name, band in zip(BANDS, views[1], strict=True)}
    second = _register({"B03": views[0, 1]} | others)[1:]
    return replace(batch, flow=torch.from_numpy(np.stack([first, second]))[None])


def with_csr(batch, csr):
    """The flow of the first view by a CSR; the second view is left out."""
    views = batch.views[:, :1]
    with torch.inference_mode():
        flow = csr.flow(views / csr.spec.gain)[:, None]
    return replace(batch, views=views, flow=flow)


def border_of(batch):
    """[fine px] left out of figures: 8, and more where a band moves out of the first view."""
    reach = float(batch.flow[:, 0].abs().max())
    return max(8, 2 * int(np.ceil(reach)) + 2)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A band as a reader would give it."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, window):
        return self.values[window.slices]


def _register(bands):
    height, width = bands["B03"].shape
    grids = dict.fromkeys(bands, GeoGrid((height, width)))
    stack = BandStack({name: _Pixels(band) for name, band in bands.items()}, grids, "B03")
    return register_bands(stack).read(Window(0, 0, width, height))


def _scene(index, needed):
    """Four bands [DN] at 5 m, of the size that is needed."""
    place, crop = PLACES[index % len(PLACES)], CROPS[index % len(CROPS)]
    side = max(_WINDOW, *needed)
    if not has_photographs():
        extent = (0, 0, 5.0 * side, 5.0 * side)
        bands, centre = procedural_scene(extent, "EPSG:32631", 500 + index).pixels, (side // 2,) * 2
    else:
        bands, centre = _read(place, side)
    top, left = (c - n // 2 for c, n in zip(centre, needed, strict=True))
    return match_crop(bands, crop)[:, top : top + needed[0], left : left + needed[1]]


def _read(place, side):
    """A window of a photograph around a place, and where in it the place is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(SHARED / place.path) as photograph:
            extent = photograph.height // _REDUCE, photograph.width // _REDUCE
            top, left = (
                min(max(c - side // 2, 0), n - side)
                for c, n in zip(place.centre, extent, strict=True)
            )
            pixels = photograph.read(
                window=rasterio.windows.Window(*(_REDUCE * n for n in (left, top, side, side)))
            )
    channels = "infrared" if place.group == "seneca" else "colour"
    return bands_from_photograph(pixels, channels, _REDUCE), (
        place.centre[0] - top,
        place.centre[1] - left,
    )
