"""Figures against truth: closed forms, and the definitions written out once more."""

import numpy as np
import pytest
from affine import Affine

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.report.consistency import measure_shift, spectral_angles
from l1bsr_geo.report.reference import compare_with_reference, measure_ssim
from l1bsr_geo.report.result import Result
from tests.unit.report.conftest import write

PLACE = {"crs": "EPSG:32631", "transform": Affine(5, 0, 500_000, 0, -5, 5_000_000)}


def smooth_noise(shape, seed=0):
    """A periodic image without anything above 0.2 cycles per pixel."""
    f = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal(shape))
    return 300 + 400 * np.fft.ifft2(noise * np.exp(-0.5 * (f / 0.08) ** 2)).real


def move(image, dx, dy):
    """By a phase ramp, which is exact for a periodic image: what is at p comes to p + (dx, dy)."""
    fy, fx = np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (fx * dx + fy * dy))).real


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.03, -0.02), (-0.5, 0.5), (3.3, -7.1)])
def test_shifts_are_measured(shift):
    image = smooth_noise((128, 128))
    assert measure_shift(image, move(image, *shift)) == pytest.approx(shift, abs=0.01)
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    assert measure_shift(image, move(image, *shift) + noise) == pytest.approx(shift, abs=0.02)


def test_angles():
    a = np.array([[1.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    b = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(spectral_angles(a, b), [45, 45, 0], atol=1e-5)


def test_figures_of_noise_of_known_size(tmp_path):
    """PSNR = 20 log10(peak / sigma); a bias and a shift take from PSNR and not from cPSNR."""
    truth = smooth_noise((300, 300))
    noise = np.random.default_rng(2).normal(0, 2, truth.shape)
    reference = write(tmp_path / "truth.tif", truth[None], **PLACE)
    plain = write(tmp_path / "plain.tif", (truth + noise)[None], **PLACE)
    (found,) = compare_with_reference(Result.open(plain), reference, peak=1000).bands
    expected = 20 * np.log10(1000 / 2)
    assert found.psnr == pytest.approx(expected, abs=0.05)
    assert found.cpsnr == pytest.approx(expected, abs=0.05)
    assert found.cpsnr_shift == (0, 0)
    moved = write(tmp_path / "moved.tif", (move(truth, -2, 1) + 30 + noise)[None], **PLACE)
    (found,) = compare_with_reference(Result.open(moved), reference, peak=1000).bands
    assert found.cpsnr == pytest.approx(expected, abs=0.05)
    assert found.cpsnr_shift == (2, -1)
    assert found.bias == pytest.approx(30, abs=0.1)
    assert found.psnr < 20 * np.log10(1000 / 30)


def test_ssim_by_its_definition():
    random = np.random.default_rng(3)
    x, y = random.uniform(0, 100, (2, 40, 30))
    known = np.ones(x.shape, bool)
    known[20, 15] = False
    found = measure_ssim(x, y, known, 100)
    weight = np.exp(-(np.add.outer(np.arange(-5, 6) ** 2, np.arange(-5, 6) ** 2)) / (2 * 1.5**2))
    weight /= weight.sum()
    expected = []
    for i in range(5, 35):
        for j in range(5, 25):
            there = slice(i - 5, i + 6), slice(j - 5, j + 6)
            if known[there].all():
                a, b = x[there], y[there]
                ma, mb = (weight * a).sum(), (weight * b).sum()
                va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
                cov = (weight * (a - ma) * (b - mb)).sum()
                alike = (2 * ma * mb + 1) * (2 * cov + 9)
                expected.append(alike / ((ma**2 + mb**2 + 1) * (va + vb + 9)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_reference_on_another_map_is_resampled(tmp_path):
    """Of 10 m, in another zone's CRS or not covering all; outside of it nothing is known."""
    rows, columns = np.mgrid[:200, :220] + 0.5
    ramp = 100 + columns * 5 * 0.1 + rows * 5 * 0.2  # of the place on the map
    result = write(tmp_path / "result.tif", ramp[None].astype(np.float32), **PLACE)
    rows, columns = np.mgrid[:60, :70] + 0.5
    there = 100 + (columns * 10 + 50) * 0.1 + (rows * 10 + 70) * 0.2
    transform = Affine(10, 0, 500_050, 0, -10, 5_000_000 - 70)
    options = {"crs": PLACE["crs"], "transform": transform}
    reference = write(tmp_path / "coarse.tif", there[None].astype(np.float32), **options)
    found = compare_with_reference(Result.open(result), reference)
    assert found.resampled
    assert found.pixels == pytest.approx(60 * 70 * 4, rel=0.05)
    assert found.bands[0].rmse < 0.2  # its border, where the kernel ends


def test_what_cannot_be_compared(tmp_path):
    image = np.ones((2, 20, 20), np.float32)
    result = Result.open(write(tmp_path / "a.tif", image, **PLACE))
    other = write(tmp_path / "b.tif", np.ones((3, 20, 20), np.float32)[[0, 1, 2]], **PLACE)
    assert len(compare_with_reference(result, other).bands) == 2  # by name
    far = {**PLACE, "transform": Affine(5, 0, 600_000, 0, -5, 5_000_000)}
    elsewhere = write(tmp_path / "c.tif", image, **far)
    with pytest.raises(BadInputError, match="no pixel in common"):
        compare_with_reference(result, elsewhere)
