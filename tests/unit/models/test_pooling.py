import itertools

import pytest
import torch

from l1bsr_geo.models.pooling import Pooling


def pooled(features, weights, kinds=("avg", "max", "std"), many=15.0):
    pooling = Pooling(kinds)
    for f, w in zip(features, weights, strict=True):
        pooling.add(f, w)
    return pooling.result(many)


@pytest.mark.parametrize("count", [2, 5, 30])
def test_it_is_what_torch_finds_in_the_whole_stack(count):
    features = 100 + torch.randn(count, 2, 3, 4, 5, dtype=torch.float64)
    weights = torch.rand(count, 2, 1, 4, 5, dtype=torch.float64)
    found = pooled(features, weights)
    total = weights.sum(0)
    expected = [features.sum(0) / total, features.amax(0), features.std(0), total / 15]
    torch.testing.assert_close(found, torch.cat(expected, 1))


def test_in_float32_a_small_deviation_of_large_features_is_kept():
    features = 1e3 + 0.1 * torch.randn(30, 1, 1, 20, 20)
    found = pooled(features, torch.ones(30, 1, 1, 20, 20), ("std",))[:, :1]
    assert (found - features.double().std(0)).abs().max() < 1e-3


def test_a_place_without_weight_counts_as_one():
    result = pooled(torch.zeros(2, 1, 1, 1, 1), torch.zeros(2, 1, 1, 1, 1), ("avg",))
    assert result.flatten().tolist() == [0, pytest.approx(1 / 15)]


def test_one_frame_has_no_deviation():
    features = torch.rand(1, 1, 2, 3, 3)
    found = pooled(features, torch.ones(1, 1, 1, 3, 3))
    torch.testing.assert_close(found[:, :2], features[0])
    assert (found[:, 4:6] == 0).all()


def test_the_order_of_frames_does_not_matter():
    features, weights = torch.randn(4, 1, 2, 3, 3), torch.rand(4, 1, 1, 3, 3)
    first = pooled(features, weights)
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(pooled(features[list(order)], weights[list(order)]), first)


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_gradients_are_finite_even_where_frames_agree(spread):
    features = (spread * torch.randn(3, 1, 2, 3, 3, dtype=torch.float64) + 1).requires_grad_()
    weights = torch.ones(3, 1, 1, 3, 3, dtype=torch.float64)
    pooled(features, weights).sum().backward()
    assert features.grad.isfinite().all()
    if spread:
        assert torch.autograd.gradcheck(lambda f: pooled(f, weights), (features,))
