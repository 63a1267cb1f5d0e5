import pytest
import torch

from l1bsr_geo.ops.flow import change_reference, invert_flow, read_flow


def affine_flow(matrix, shift, height=30, width=40):
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    centred = torch.stack([x - width / 2, y - height / 2])
    matrix, shift = (torch.tensor(v, dtype=torch.float64) for v in (matrix, shift))
    return (torch.einsum("ij,jhw->ihw", matrix, centred) + shift[:, None, None])[None]


def test_a_translation_is_turned_round():
    flow = affine_flow([[0, 0], [0, 0]], [0.7, -1.3])
    torch.testing.assert_close(invert_flow(flow), -flow)


def test_the_inverse_of_an_affine_flow_is_exact():
    matrix = torch.tensor([[0.02, -0.01], [0.015, -0.03]])
    flow = affine_flow(matrix.tolist(), [0.6, -0.4])
    inverse = invert_flow(flow)
    # p + A p + b = q for p = q + inverse(q), in centred coordinates
    back = torch.linalg.inv(torch.eye(2) + matrix) - torch.eye(2)
    shift = -torch.linalg.inv(torch.eye(2) + matrix) @ torch.tensor([0.6, -0.4])
    expected = affine_flow(back.tolist(), shift.tolist())
    inner = (..., slice(3, -3), slice(3, -3))
    assert (inverse - expected)[inner].abs().max() < 1e-4


def test_there_and_back_is_where_one_was():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    flow = torch.stack([0.8 * torch.sin(x / 6 + y / 9), 0.6 * torch.cos(y / 7)])[None]
    inverse = invert_flow(flow)
    left_over = inverse + read_flow(flow, inverse)
    assert left_over[..., 2:-2, 2:-2].abs().max() < 1e-4
    minus = -flow + read_flow(flow, -flow)  # what the negative alone would leave
    assert minus[..., 2:-2, 2:-2].abs().max() > 0.05


def test_it_is_differentiable():
    flow = (0.1 * torch.randn(1, 2, 5, 5, dtype=torch.float64)).requires_grad_()
    invert_flow(flow).sum().backward()
    assert flow.grad.abs().sum() > 0


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_a_change_of_reference_composes_flows(reference):
    to_one = affine_flow([[0.01, 0], [0, -0.01]], [0.5, 0.2])
    to_two = affine_flow([[0, 0.02], [0.01, 0]], [-0.3, 0.9])
    flow = torch.stack([torch.zeros_like(to_one), to_one, to_two], 1)
    changed = change_reference(flow, reference)
    assert changed[:, reference].abs().max() == 0
    # going from the first frame to the new reference, and on from there, is the old way
    for t in range(3):
        onward = flow[:, reference] + read_flow(changed[:, t], flow[:, reference])
        assert (onward - flow[:, t])[..., 4:-4, 4:-4].abs().max() < 1e-4
