"""Residual displacement against a local mixture of aligned bands."""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.registration.local import Predictor, cell_centres, residual_displacement

SHAPE = (130, 150)  # not a multiple of the cell


@pytest.fixture(scope="module")
def bands():
    rng = np.random.default_rng(0)
    return [
        ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2).astype(np.float32) for _ in range(2)
    ]


def normal(predictors, target):
    edges = Predictor.of_edges(predictors[0])
    weight = np.zeros(SHAPE, np.float32)
    weight[4:-4, 4:-4] = 1
    info, pull = residual_displacement([Predictor.of(p) for p in predictors], edges, target, weight)
    assert info.shape[:2] == pull.shape[:2] == tuple(len(cell_centres(n)) for n in SHAPE)
    return info, pull


@pytest.mark.parametrize("mixture", [(1.0, 0.0), (-0.7, 0.0), (0.5, -1.2)])
def test_what_is_missing_is_found_in_any_mixture(bands, mixture):
    mixed = mixture[0] * bands[0] + mixture[1] * bands[1]
    # the flow lacks (0.2, -0.1): the target shows at p what belongs to p - (0.2, -0.1)
    target = ndimage.shift(mixed, (-0.1, 0.2), order=5, mode="reflect")
    info, pull = (v.sum((0, 1)) for v in normal(bands, target))
    missing = np.linalg.solve([[info[0], info[1]], [info[1], info[2]]], pull)
    np.testing.assert_allclose(missing, (0.2, -0.1), atol=0.04)  # one step; rounds do the rest


def test_an_unrelated_band_weighs_little(bands):
    related, _ = normal(bands[:1], 0.5 * bands[0])
    unrelated, _ = normal(bands[:1], bands[1])
    assert unrelated.sum() < 1e-3 * related.sum()


def test_a_constant_weighs_nothing(bands):
    info, _ = normal(bands[:1], np.zeros(SHAPE, np.float32))
    assert info.max() < 1e-3
    assert np.isfinite(info).all()


def test_centres_of_cells_and_of_the_rest():
    assert cell_centres(40).tolist() == [8, 24, 36]
