"""The noise of a video is found to 10 % where it is white."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.restoration.noise_level import (
    Noise,
    estimate_from_residuals,
    estimate_noise,
)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Ramps, edges and some texture, 10 to 240 DN: (3, 256, 384)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :384] / 256
    smooth = 40 + 130 * x + 30 * np.sin(5 * y)
    blocks = rng.uniform(-40, 40, (8, 12)).repeat(32, 0).repeat(32, 1)
    texture = (
        25
        * rng.standard_normal((256, 384))
        * (gaussian_filter(rng.normal(size=(256, 384)), 20) > 0.005)
    )
    image = np.clip(smooth + blocks + gaussian_filter(texture, 0.8), 10, 240)
    return np.stack([image, 0.8 * image, 250 - image])


def check(noise: Noise, a: float, b: float, scene: np.ndarray, within: float = 0.1) -> None:
    levels = np.percentile(scene, [5, 25, 50, 75, 95])
    np.testing.assert_allclose(noise.deviation(levels), np.sqrt(a * levels + b), rtol=within)


CASES = {
    "gaussian 5": (0.0, 25.0),
    "gaussian 30": (0.0, 900.0),
    "poisson 8": (8.0, 0.0),
    "poisson 1": (1.0, 0.0),
    "affine": (2.0, 100.0),
}


def add_noise(scene: np.ndarray, a: float, b: float, frames: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    clean = np.broadcast_to(scene, (frames, *scene.shape))
    light = a * rng.poisson(clean / a) if a else clean
    return (light + rng.normal(0, np.sqrt(b), clean.shape)).astype(np.float32)


@pytest.mark.parametrize(("a", "b"), CASES.values(), ids=CASES)
def test_known_noise_is_found_in_single_frames(scene, a, b):
    noisy = add_noise(scene, a, b)
    check(estimate_noise(ArrayVideo(noisy)), a, b, scene)


@pytest.mark.parametrize(("a", "b"), CASES.values(), ids=CASES)
def test_known_noise_is_found_in_what_was_taken_off(scene, a, b):
    noisy = add_noise(scene, a, b)
    check(estimate_from_residuals((frame, scene) for frame in noisy), a, b, scene)


def test_twelve_bits_are_no_different(scene):
    noisy = 16 * add_noise(scene, 2.0, 100.0)
    noise = estimate_noise(ArrayVideo(noisy.astype(np.uint16)))
    check(noise.scale(1 / 16), 2.0, 100.0, scene)


def test_what_is_clipped_and_what_has_no_data_tells_nothing(scene):
    noisy = np.clip(add_noise(scene, 0.0, 900.0), 0, 255)
    noisy[:, :, 40:90, 100:300] = np.nan
    check(estimate_noise(ArrayVideo(noisy)), 0.0, 900.0, scene)


def test_correlated_noise_is_found_in_residuals_alone(scene):
    white = np.random.default_rng(2).normal(0, 60, (2, *scene.shape))
    noisy = (scene + uniform_filter(white, (0, 0, 3, 3))).astype(np.float32)  # sigma 20
    level = float(np.median(scene))
    assert estimate_noise(ArrayVideo(noisy)).deviation(level) < 0.5 * 20  # as documented: too low
    check(estimate_from_residuals((f, scene) for f in noisy), 0.0, 400.0, scene)


def test_a_clean_image_has_hardly_any(scene):
    noise = estimate_noise(ArrayVideo(scene[None].astype(np.float32)))
    assert noise.deviation(120.0) < 1.0


def test_without_a_block_of_data_there_is_no_estimate():
    with pytest.raises(BadInputError, match="give --noise"):
        estimate_noise(ArrayVideo(np.full((2, 30, 30), np.nan, np.float32)))
    with pytest.raises(BadInputError, match="8 x 8 px"):
        estimate_noise(ArrayVideo(np.zeros((2, 7, 30), np.float32)))
