"""The fixed test set of multi-image benchmarks: twelve bursts of ground that no network has seen.

Satellite scenes (0.5 m panchromatic) and aerial photographs that no recipe names. Photographs of
one flight show the same ground twice, so crops lie where no photograph that is trained on reaches,
as matching showed (GPS alone does not tell):

- brighton DJI_0024 and 0025: their left 60 % are in DJI_0021 to 0023; crops are right of that, and
  not in each other;
- seneca IMG_0578, 0589, 0611: overlaps with 0490, 0512 and 0545 are at their left and top edges;
- seneca IMG_0600 is left out: IMG_0446, which is trained on, shows 83 % of it, IMG_0523 the rest.

Validation bursts, on which parameters may be chosen, are of DJI_0023 and IMG_0567, as in recipes.
"""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.photographs import read_fine_scenes

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

SIDE = 96  # [px] of a frame
FRAMES = 30
NOISE = 2.5  # times SkySat's, see simulation.bursts
STEPS = (0.25, 0.5, 1.0, 2.0)  # exposures that are drawn from; the reference has 1
_MARGIN = 24  # [px] of the scene around the frames


@dataclass(frozen=True)
class Place:
    """Where a scene is cut.

    Attributes:
        group: what figures are averaged over by themselves.
        path: in the folder of data.
        centre: (row, column) [fine px]: of the halved photograph, or of the satellite image.
    """

    group: str
    path: str
    centre: tuple[int, int]

    @property
    def name(self):
        return f"{self.path} {self.centre[0]} {self.centre[1]}"


TEST = (
    Place("brighton", "aerial/brighton/DJI_0024.jpg", (281, 1460)),
    Place("brighton", "aerial/brighton/DJI_0024.jpg", (281, 1780)),
    Place("brighton", "aerial/brighton/DJI_0025.jpg", (840, 1460)),
    Place("brighton", "aerial/brighton/DJI_0025.jpg", (840, 1780)),
    Place("seneca", "aerial/seneca/IMG_0578.jpg", (675, 900)),
    Place("seneca", "aerial/seneca/IMG_0589.jpg", (800, 1150)),
    Place("seneca", "aerial/seneca/IMG_0589.jpg", (1000, 560)),
    Place("seneca", "aerial/seneca/IMG_0611.jpg", (800, 1500)),
    Place("satellite", "pleiades_gizeh/img1.tif", (400, 400)),
    Place("satellite", "pleiades_marseille_triplet/img_01.tif", (512, 512)),
    Place("satellite", "spacenet_pan/pan1.tif", (300, 300)),
    Place("satellite", "spacenet_pan/sample_geotiff.tif", (450, 450)),
)
VALIDATION = (
    Place("brighton", "aerial/brighton/DJI_0023.jpg", (281, 500)),
    Place("brighton", "aerial/brighton/DJI_0023.jpg", (840, 1300)),
    Place("brighton", "aerial/brighton/DJI_0023.jpg", (400, 1720)),
    Place("seneca", "aerial/seneca/IMG_0567.jpg", (675, 400)),
    Place("seneca", "aerial/seneca/IMG_0567.jpg", (675, 900)),
    Place("seneca", "aerial/seneca/IMG_0567.jpg", (675, 1400)),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """A burst of one place, with all that is true of it.

    Attributes:
        place: where.
        batch: of one: views, flow, exposures as told and truth. Saturated pixels are NaN (dropping
            what is around them too costs ACT up to 1 dB); the reference's exposure saturates none.
        counts: (T, H, W) uint16: the frames as a product holds them.
    """

    place: Place
    batch: Batch
    counts: np.ndarray


def has_photographs():
    return SHARED.is_dir()


def read_sample(places, index, *, scale=2, side=SIDE, several=False, error=0.0, noise=NOISE):
    """The burst of a place: always the same.

    Args:
        places: TEST or VALIDATION.
        index: in it.
        scale: fine pixels to a pixel.
        side: [px] of the frames.
        several: exposures are drawn from STEPS, but for the reference's, which is 1.
        error: relative, of the exposures that are told; motion and noise stay as without.
        noise: times SkySat's.
    """
    seed = index + (1000 if places is VALIDATION else 0)
    exposures = np.ones(FRAMES)
    if several:
        exposures[1:] = np.random.default_rng([seed, 1]).choice(STEPS, FRAMES - 1)
    made = simulate_burst(
        _cut(places[index], scale * (side + 2 * _MARGIN), seed),
        (side, side),
        FRAMES,
        scale=scale,
        noise=noise,
        exposures=tuple(exposures.tolist()),
        exposure_error=error,
        seed=seed,
    )
    views = made.counts.astype(np.float32)
    views[1:][views[1:] >= FULL_SCALE] = np.nan
    batch = Batch(
        torch.from_numpy(views)[None, :, None],
        torch.from_numpy(made.flow)[None, :, None],
        torch.from_numpy(made.exposures)[None],
        torch.from_numpy(made.truth)[None, None],
    )
    return Sample(places[index], batch, made.counts)


def with_estimated_motion(sample):
    """The same with motion as ``align_frames`` finds it, and each frame's error [px].

    A frame that is rejected has no data, and an error of NaN. Where all are, there is no batch: the
    command refuses such a burst.
    """
    height, width = sample.counts.shape[1:]
    exposures = tuple(sample.batch.exposures[0].tolist())
    grids = (GeoGrid((height, width)),) * len(sample.counts)
    burst = Burst(tuple(map(_Pixels, sample.counts)), grids, exposures, saturated=FULL_SCALE)
    try:
        found = align_frames(burst).read(Window(0, 0, width, height))
    except BadInputError:
        return None, np.full(len(sample.counts), np.nan)
    error = np.hypot(*(found - sample.batch.flow[0, :, 0].numpy()).swapaxes(0, 1))
    views, rejected = sample.batch.views.clone(), np.isnan(found).any((1, 2, 3))
    views[0, rejected] = torch.nan
    flow = torch.from_numpy(np.nan_to_num(found))[None, :, None]
    return replace(sample.batch, views=views, flow=flow), error.mean((1, 2))


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A frame as a reader would give it."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, window):
        return self.values[window.slices]


def _cut(place, size, seed):
    if not has_photographs():
        return made_city((size, size), 900_000 + seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        (scene,) = read_fine_scenes([SHARED / place.path])
    top, left = (centre - size // 2 for centre in place.centre)
    cut = scene[max(top, 0) : top + size, max(left, 0) : left + size]
    if cut.shape != (size, size):
        raise ValueError(f"{place.name}: {size} px do not fit into {scene.shape}")
    return cut
