"""Networks are built no larger than their file."""

import pytest
from torch import nn

from l1bsr_geo.errors import WeightsError
from l1bsr_geo.models.architecture import no_larger_than


def test_small_networks_are_built():
    with no_larger_than(0):
        assert len(nn.Sequential(*[nn.Linear(2, 2) for _ in range(100)])) == 100


def test_large_ones_are_stopped_early():
    made = []
    with pytest.raises(WeightsError, match="the file has 3 tensors"), no_larger_than(3):
        nn.Sequential(*(made.append(1) or nn.Linear(2, 2) for _ in range(10**9)))
    assert len(made) < 2000


def test_the_limit_ends():
    with no_larger_than(0):
        pass
    assert len(nn.Sequential(*[nn.Linear(1, 1) for _ in range(3000)])) == 3000
