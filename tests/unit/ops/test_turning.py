import pytest
import torch

from l1bsr_geo.ops.turning import WAYS, turn, turn_back, turn_flow


@pytest.mark.parametrize("way", range(WAYS))
def test_vectors_turn_with_what_they_point_at(way):
    """Where an image is a linear function, a step along a vector changes it by as much."""
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    image = 3 * x - 5 * y
    flow = torch.stack([torch.full_like(x, 1.0), torch.full_like(x, 2.0)])  # changes it by -7
    turned, vector = turn(image, way), turn_flow(flow, way)[:, 2, 2].int().tolist()
    assert turned[2 + vector[1], 2 + vector[0]] - turned[2, 2] == -7
    assert torch.equal(turn_back(turned, way), image)


def test_ways_are_eight():
    image = torch.arange(9.0).view(3, 3)
    assert len({tuple(turn(image, way).flatten().tolist()) for way in range(WAYS)}) == WAYS
