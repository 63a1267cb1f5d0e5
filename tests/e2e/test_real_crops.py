"""Real Sentinel-2 L1B crops come out with aligned bands, measured apart from the alignment."""

import numpy as np
import pytest
import rasterio

from l1bsr_geo.pipelines.bands import register
from l1bsr_geo.pipelines.super_resolution import super_resolve

BLOCK = 88  # [px of the input]
BANDS = ("B02", "B03", "B04", "B08")


def residuals(pixels: np.ndarray, scale: int) -> np.ndarray:
    """|shift| to B03 [input px] of every block and band, by gradient phase correlation.

    Gradient magnitude of log radiance under a Hann window; the peak of the phase correlation is
    refined by a parabola on each axis.
    """
    side = BLOCK * scale
    window = np.hanning(side)[:, None] * np.hanning(side)
    found = []
    for top in range(0, pixels.shape[1] - side + 1, side):
        for left in range(0, pixels.shape[2] - side + 1, side):
            block = np.log(pixels[:, top : top + side, left : left + side].clip(1))
            spectra = []
            for band in block:
                gradient = np.hypot(*np.gradient(band))
                spectra.append(np.fft.fft2((gradient - gradient.mean()) * window))
            found.append([shift_between(s, spectra[1]) / scale for s in spectra])
    return np.linalg.norm(found, axis=-1)


def shift_between(spectrum: np.ndarray, reference: np.ndarray) -> np.ndarray:
    cross = spectrum * reference.conj()
    surface = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-12)).real
    peak = np.unravel_index(np.argmax(surface), surface.shape)
    shift = []
    for axis, at in enumerate(peak):
        line = surface.take(peak[1 - axis], 1 - axis)
        n = len(line)
        before, top, after = line[(at - 1) % n], line[at], line[(at + 1) % n]
        whole = (at + n // 2) % n - n // 2
        shift.append(whole + 0.5 * (before - after) / (before - 2 * top + after))
    return np.array(shift)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("pipeline", "scale"), [(register, 1), (super_resolve, 2)])
def test_bands_are_aligned(shared, tmp_path, pipeline, scale):
    before, after = [], []
    for source in sorted((shared / "data/l1bsr_examples").glob("*.tif")):
        output = tmp_path / source.name
        pipeline(source, output, sensor="raster", bands=BANDS)
        with rasterio.open(source) as dataset:
            before.append(residuals(dataset.read().astype(float), 1))
        with rasterio.open(output) as dataset:
            pixels = dataset.read().astype(float)
        assert pixels.shape == (4, 352 * scale, 352 * scale)
        after.append(residuals(pixels, scale))
    assert len(after) == 5
    was, is_ = (np.median(np.concatenate(r), axis=0) for r in (before, after))
    print(f"residual misalignment [px], B02 B03 B04 B08: {was.round(3)} -> {is_.round(3)}")
    assert (was[[0, 2, 3]] > 0.6).all()
    assert is_[0] <= 0.1
    assert is_[2] <= 0.1
    assert is_[3] <= 0.35
