"""The smooth field of many measurements."""

import numpy as np
import pytest

from l1bsr_geo.registration.smooth import Measurements, fit_field

SHAPE = (500, 400)
Y, X = (np.arange(8.0, n, 16) for n in SHAPE)


def true(y, x):
    """Focal plane and attitude wobble."""
    y, x = np.meshgrid(y, x, indexing="ij")
    dx = 3 + 2 * x / 400 + 0.8 * np.sin(2 * np.pi * y / 300)
    return np.stack([dx, -4 + 1.5 * (x / 400) ** 2 + 0.3 * y / 500])


def measure(d, worth):
    info = worth[..., None] * np.array([1.0, 0.0, 1.0])
    return Measurements(Y, X, info, worth[..., None] * np.moveaxis(d, 0, -1))


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    d = true(Y, X)
    return d + 0.2 * rng.standard_normal(d.shape)


def test_noise_is_averaged(noisy):
    field, _ = fit_field(measure(noisy, np.full(noisy.shape[1:], 25.0)), SHAPE)
    error = field.at(Y, X) - true(Y, X)
    assert np.sqrt((error**2).mean()) < 0.08


def test_outliers_are_not_believed(noisy):
    wrong = np.zeros(noisy.shape[1:], bool)
    wrong[5:11, 6:14] = True
    noisy[:, wrong] += 2.5
    field, believed = fit_field(measure(noisy, np.full(wrong.shape, 25.0)), SHAPE)
    assert np.abs(field.at(Y, X) - true(Y, X)).max() < 0.25
    assert believed[wrong].max() < 0.1
    assert np.median(believed[~wrong]) > 0.6


def test_one_component_alone_counts_where_only_it_is_seen():
    """Straight edges say nothing along themselves."""
    shape = (len(Y), len(X))
    info = np.zeros((*shape, 3))
    info[:, ::2, 0], info[:, 1::2, 2] = 100, 100
    pull = np.stack([info[..., 0] * 1.5, info[..., 2] * -2.5], -1)
    field, _ = fit_field(Measurements(Y, X, info, pull), SHAPE)
    np.testing.assert_allclose(field.at(Y, X)[0], 1.5, atol=0.01)
    np.testing.assert_allclose(field.at(Y, X)[1], -2.5, atol=0.01)


def test_it_goes_on_smoothly_where_nothing_is_known(noisy):
    worth = np.full(noisy.shape[1:], 25.0)
    worth[:, 12:] = 0
    field, _ = fit_field(measure(noisy, worth), SHAPE)
    everywhere = field.at(np.arange(500.0), np.arange(400.0))
    assert np.abs(everywhere - true(np.arange(500.0), np.arange(400.0))).max() < 1.0
    assert np.abs(np.diff(everywhere, 2, axis=-1)).max() < 1e-3


def test_nothing_known_is_zero():
    nothing = measure(np.zeros((2, len(Y), len(X))), np.zeros((len(Y), len(X))))
    field, _ = fit_field(nothing, SHAPE)
    assert not field.at(Y, X).any()


def test_stretches_are_joined(noisy):
    worth = np.full(noisy.shape[1:], 25.0)
    whole = measure(noisy, worth)
    parts = [Measurements(Y[s], X, whole.info[s], whole.pull[s]) for s in (np.s_[:9], np.s_[9:])]
    np.testing.assert_array_equal(Measurements.join(parts).pull, whole.pull)
    np.testing.assert_array_equal(Measurements.join(parts).y, Y)
