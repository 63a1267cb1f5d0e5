import pytest
import torch

from l1bsr_geo.ops.spline_fit import SplineFit


def samples(count=400, height=9, width=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y, w = torch.rand(3, count, generator=generator, dtype=torch.float64)
    return x * (width - 1), y * (height - 1), 0.5 + w


def fit(values, x, y, weights, height=9, width=11):
    made = SplineFit(height, width, values)
    for part in zip(*(v.chunk(3) for v in (values, x, y, weights)), strict=True):
        made.add(*part)  # frame by frame
    return made


def test_a_cubic_polynomial_is_found_again():
    def polynomial(x, y):
        return 0.02 * x**3 - 0.1 * x * y + y**2 - 3

    x, y, weights = samples(4000)
    found = fit(polynomial(x, y), x, y, weights).solve(torch.zeros(9, 11), 400)
    row, column = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    # at the border the spline cannot go on as the polynomial does
    assert (found - polynomial(column, row))[3:-3, 3:-3].abs().max() < 0.1
    assert (found - polynomial(column, row)).abs().max() < 0.05 * 70


def bspline(t):
    t = t.abs()
    return torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, torch.where(t < 2, (2 - t) ** 3 / 6, 0))


@pytest.mark.parametrize("regularisation", [0.02, 1.0])
def test_it_is_the_dense_least_squares_solution(regularisation):
    height, width = 4, 5
    x, y, weights = samples(60, height, width)
    x[:3], y[:3] = torch.tensor([-0.9, width - 0.2, 2]), torch.tensor([1, 2, height - 0.1])
    values = torch.sin(x) + torch.cos(2 * y)
    stiffness = regularisation * torch.linspace(1, 3, width).double().expand(height, width)
    found = fit(values, x, y, weights, height, width).solve(stiffness, 500)
    knots_y, knots_x = torch.arange(-2.0, height + 3), torch.arange(-2.0, width + 3)
    basis = bspline(y[:, None] - knots_y)[..., None] * bspline(x[:, None] - knots_x)[:, None]
    # knots beyond the grid are those at its border once more
    extend = torch.zeros(len(knots_y), len(knots_x), height * width, dtype=torch.float64)
    for i, row in enumerate(knots_y.clamp(0, height - 1).int()):
        for j, column in enumerate(knots_x.clamp(0, width - 1).int()):
            extend[i, j, row * width + column] = 1
    basis = basis.flatten(1).double() @ extend.flatten(0, 1)
    laplacian = torch.zeros(height * width, height * width, dtype=torch.float64)
    index = torch.arange(height * width).view(height, width)
    for a, b in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        for p, q in zip(a.flatten(), b.flatten(), strict=True):
            laplacian[p, q] += 1
            laplacian[q, p] += 1
            laplacian[p, p] -= 1
            laplacian[q, q] -= 1
    normal = basis.T @ (weights[:, None] * basis)
    normal += laplacian @ (stiffness.flatten()[:, None] * laplacian)
    c = torch.linalg.solve(normal, basis.T @ (weights * values))
    c = (extend @ c).view(height + 5, width + 5)
    at = bspline(torch.arange(-1, 2, dtype=torch.float64))
    expected = sum(
        at[i] * at[j] * c[1 + i : 1 + i + height, 1 + j : 1 + j + width]
        for i in range(3)
        for j in range(3)
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_far_samples_and_those_without_weight_do_not_count():
    x, y, weights = samples()
    values = torch.sin(x) * y
    stiffness = torch.full((9, 11), 0.01).double()
    alone = fit(values, x, y, weights).solve(stiffness, 50)
    more = fit(values, x, y, weights)
    far = torch.tensor([-1.5, 12.0, torch.nan, 3.0], dtype=torch.float64)
    more.add(torch.full_like(far, 1e3), far, torch.full_like(far, 20.0), torch.ones_like(far))
    more.add(
        torch.full_like(far, 1e3), torch.ones_like(far), far.nan_to_num(), 0 * far.nan_to_num()
    )
    torch.testing.assert_close(more.solve(stiffness, 50), alone)


def test_a_constant_is_exact():
    x, y, weights = samples(40)
    found = fit(torch.full_like(x, 7.5), x, y, weights).solve(
        torch.full((9, 11), 0.02).double(), 30
    )
    torch.testing.assert_close(found, torch.full_like(found, 7.5))
