"""The five real L1B crops, restored by the steps of the pipeline, and what can be said of them.

There is no truth. Bands must lie on each other; the result, read where a band's own pixels are,
must be those pixels but for their noise; and what it adds must be detail, not a pattern. Figures
are of the result as it is written, in whole DN.
"""

import warnings

import dask
import numpy as np
import rasterio
import torch
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.readers.geotiff import read_raster
from l1bsr_geo.registration.bands import register_bands
from l1bsr_geo.simulation.overlaps import noise_sigma
from l1bsr_geo.tiling.execute import map_tiles
from tests.benchmarks.burst_set import SHARED
from tests.benchmarks.image_figures import checkerboard, mean_spectrum, share_beyond
from tests.e2e.test_real_crops import BANDS, residuals

FOLDER = SHARED / "l1bsr_examples"
_MARGIN = 12  # [px] left out of figures


def find_crops():
    """Their files; none without ../shared."""
    return sorted(FOLDER.glob("*.tif"))


def measure_crop(path, models):
    """Figures of one crop for each of several models, {name: figures}.

    Bias and RMSE are of the result, read at the pixels of the input, against the input, by band.
    The noise that is expected there is ``noise`` [DN].
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        stack = read_raster(path, BANDS)
        scene = BandScene(stack, register_bands(stack))
        views = scene.read(Window(0, 0, *stack.shape[::-1]))
    found = {}
    for name, model in models.items():
        image = map_tiles(model, scene)
        with dask.config.set(scheduler="synchronous"):
            fine = image.pixels.values.astype(np.float64)
        bias, rmse = compare(fine, views.pixels[0], views.flow[0])
        found[name] = {
            "residuals": residuals(fine, 2).tolist(),
            "bias": bias.tolist(),
            "rmse": rmse.tolist(),
            "noise": float(np.sqrt((noise_sigma(views.pixels[0]) ** 2).mean((1, 2)))[1]),
            "spectrum": mean_spectrum(
                fine[:, 2 * _MARGIN : -2 * _MARGIN, 2 * _MARGIN : -2 * _MARGIN]
            ),
        }
    return found


def compare(fine, pixels, flow):
    """The result at the places of the input's pixels, against them: relative bias, and RMSE [DN].

    Args:
        fine: (C, 2 H, 2 W) [DN].
        pixels: (C, H, W) [DN].
        flow: (C, 2, H, W) [px] to the reference, zero for the reference itself.
    """
    places = invert_flow(torch.from_numpy(flow)).numpy()
    y, x = np.mgrid[: pixels.shape[1], : pixels.shape[2]] + 0.5
    bias, rmse = [], []
    inner = (slice(_MARGIN, -_MARGIN),) * 2
    for band, own, (dx, dy) in zip(fine, pixels, places, strict=True):
        at = np.stack([2 * (y + dy) - 0.5, 2 * (x + dx) - 0.5])
        there = ndimage.map_coordinates(band, at, order=5, mode="mirror")
        apart = (there - own)[inner]
        bias.append(apart.mean() / own[inner].mean())
        rmse.append(np.sqrt((apart**2).mean()))
    return np.array(bias), np.array(rmse)


def summarise(crops, model):
    """Figures of all crops together, of one model.

    Args:
        crops: what ``measure_crop`` gave for each.
        model: name.

    Returns:
        ``misalignment`` (C,) median [px of the input] to B03; ``bias`` and ``rmse`` (crops, C);
        ``noise`` (crops,); ``beyond`` (C,) share of the power beyond the input's Nyquist frequency;
        ``checkerboard`` (C,).
    """
    found = [crop[model] for crop in crops]
    # crops count alike, whatever their contrast
    spectra = [f["spectrum"] / f["spectrum"].sum((1, 2), keepdims=True) for f in found]
    spectrum = np.mean(spectra, 0)
    return {
        "misalignment": np.median(np.concatenate([f["residuals"] for f in found]), 0),
        "bias": np.array([f["bias"] for f in found]),
        "rmse": np.array([f["rmse"] for f in found]),
        "noise": np.array([f["noise"] for f in found]),
        "beyond": share_beyond(spectrum),
        "checkerboard": checkerboard(spectrum),
    }
