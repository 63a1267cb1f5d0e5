"""Every family of noise has the moments it tells, and is the same again for the same seed."""

import numpy as np
import pytest

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.simulation.letters import LETTERS
from l1bsr_geo.simulation.noise import (
    Affine,
    Bernoulli,
    Box,
    Demosaicked,
    Gaussian,
    Impulse,
    NoiseRange,
    Poisson,
    Text,
)

ALL = [
    Gaussian(20.0),
    Poisson(8.0),
    Affine(2.0, 30.0),
    Box(40.0, 3),
    Box(65.0, 4),
    Bernoulli(0.3),
    Impulse(0.4),
    Impulse(0.4, peak=4095.0),
    Text(0.25),
    Demosaicked(4.0),
]


@pytest.fixture
def clean():
    ramp = np.linspace(20, 230, 128, dtype=np.float32)
    return np.broadcast_to(ramp, (2, 3, 128, 128)).copy()


@pytest.mark.parametrize("noise", ALL, ids=lambda n: repr(n))
def test_the_same_seed_gives_the_same_and_frames_differ(noise, clean):
    a, b, c = (noise.add(clean, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert a.shape == clean.shape
    assert a.dtype == np.float32
    assert not np.array_equal(a, c)
    assert not np.array_equal(a[0], a[1])


@pytest.mark.parametrize("noise", [n for n in ALL if not isinstance(n, Demosaicked)], ids=repr)
def test_what_is_added_has_the_spread_that_is_told(noise, clean):
    error = noise.add(clean, np.random.default_rng(0)) - clean
    told = noise.spread(clean)
    tolerance = 0.3 if isinstance(noise, Text) else 0.06  # few letters, each of one colour
    for part in np.s_[..., :64], np.s_[..., 64:]:
        measured = np.sqrt(np.mean(error[part] ** 2))
        assert measured == pytest.approx(np.sqrt(np.mean(told[part] ** 2)), rel=tolerance)


@pytest.mark.parametrize("noise", [Gaussian(20.0), Poisson(8.0), Affine(2.0, 30.0), Box(40.0, 3)])
def test_zero_mean_families_keep_the_mean(noise, clean):
    error = noise.add(clean, np.random.default_rng(0)) - clean
    assert abs(error.mean()) < 0.5


def test_scaled_poisson_is_of_whole_photons(clean):
    noisy = Poisson(8.0).add(clean, np.random.default_rng(0))
    assert np.array_equal(noisy % 8, np.zeros_like(noisy))
    flat = Poisson(8.0).add(np.full((1, 256, 256), 100.0, np.float32), np.random.default_rng(0))
    assert flat.var() / flat.mean() == pytest.approx(8.0, rel=0.05)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_box_noise_is_correlated_within_the_box_alone(size):
    noise = Box(40.0, size).add(np.zeros((1, 256, 256), np.float32), np.random.default_rng(0))[0]
    for lag in range(1, size + 2):
        expected = max(0, size - lag) / size
        for a, b in ((noise[:, :-lag], noise[:, lag:]), (noise[:-lag], noise[lag:])):
            assert np.mean(a * b) / noise.var() == pytest.approx(expected, abs=0.05)
    assert noise[:2].std() == pytest.approx(noise.std(), rel=0.2)  # no other border


def test_a_lost_pixel_is_lost_in_all_bands_and_told(clean):
    noisy, mask = Bernoulli(0.3).look(clean, np.random.default_rng(0))
    assert mask.shape == (2, 1, 128, 128)
    np.testing.assert_array_equal(noisy, clean * mask)
    assert 1 - mask.mean() == pytest.approx(0.3, abs=0.02)


def test_impulses_leave_the_other_pixels_alone(clean):
    noisy = Impulse(0.4).add(clean, np.random.default_rng(0))
    hit = (noisy != clean).any(1)
    assert hit.mean() == pytest.approx(0.4, abs=0.02)
    assert noisy.min() >= 0
    assert noisy.max() <= 255


def test_text_covers_its_share_with_letters(clean):
    noisy = Text(0.25).add(clean, np.random.default_rng(0))
    covered = (noisy != clean).any(1).mean((1, 2))
    assert np.all((covered > 0.25) & (covered < 0.4))
    assert len(LETTERS) == 28
    assert len({letter.tobytes() for letter in LETTERS}) == 28


def test_demosaicked_noise_is_correlated():
    flat = np.full((3, 128, 128), 100.0, np.float32)
    error = Demosaicked(4.0).add(flat, np.random.default_rng(0)) - flat
    for band in error:
        assert np.mean(band[:, :-1] * band[:, 1:]) / band.var() > 0.2
    with pytest.raises(BadOptionError, match="3 colours; found 1 bands"):
        Demosaicked(4.0).add(flat[:1], np.random.default_rng(0))


def test_a_range_draws_within_its_ends():
    rng = np.random.default_rng(0)
    drawn = [NoiseRange("gaussian", {"sigma": (5, 55)}).draw(rng).sigma for _ in range(200)]
    assert 5 <= min(drawn) < 8
    assert 52 < max(drawn) <= 55
    assert NoiseRange("box", {"sigma": 40, "size": 3}).draw(rng) == Box(40, 3)
    assert NoiseRange("impulse", {"p": [0.2, 0.2]}).draw(rng) == Impulse(0.2)


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        ("snow", {}, "noise.family: found 'snow', allowed gaussian, poisson"),
        ("gaussian", {}, "gaussian takes sigma; found none"),
        ("gaussian", {"sigma": 1, "p": 2}, "gaussian takes sigma; found sigma, p"),
        ("gaussian", {"sigma": [9, 3]}, "noise.sigma: found \\[9, 3\\], allowed a number, or"),
        ("gaussian", {"sigma": "much"}, "noise.sigma: found 'much'"),
        ("gaussian", {"sigma": [-1, 3]}, "Gaussian noise, sigma: found -1, allowed 0 to inf"),
        ("bernoulli", {"p": [0, 1.5]}, "Bernoulli noise, p: found 1.5, allowed 0 to 1"),
    ],
)
def test_a_wrong_range_is_refused_in_a_line(family, parameters, message):
    with pytest.raises(BadOptionError, match=message):
        NoiseRange(family, parameters)
