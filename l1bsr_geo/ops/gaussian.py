"""Gaussian blur, of images that may have holes too."""

import torch
from torch import Tensor
from torch.nn import functional


def blur(image: Tensor, sigma: float, least: float = 0.5) -> Tensor:
    """Gaussian blur of what is known.

    Args:
        image: (B, C, H, W), floating; NaN where nothing is known.
        sigma: standard deviation [px]; the kernel is cut at five of them.
        least: share of the kernel that must be known; half of it is where a straight edge is.

    Returns:
        (B, C, H, W): beyond the edges the image is reflected at its edge pixels; a NaN counts
        nothing, and the result is NaN where no more than ``least`` of the kernel is known.
    """
    known = ~image.isnan()
    if bool(known.all()):
        return _blur(image, sigma)
    share = _blur(known.to(image), sigma)
    return torch.where(share > least, _blur(image.nan_to_num(), sigma) / share, torch.nan)


def _blur(image: Tensor, sigma: float) -> Tensor:
    reach = int(5 * sigma)
    at = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (at / sigma).square())
    taps = taps / taps.sum()
    planes = image.flatten(0, 1)[:, None]
    for axis, kernel in ((-1, taps.view(1, 1, 1, -1)), (-2, taps.view(1, 1, -1, 1))):
        around = _reflected(planes.shape[axis], reach).to(image.device)
        planes = functional.conv2d(planes.index_select(axis, around), kernel)
    return planes.view(image.shape)


def _reflected(count: int, reach: int) -> Tensor:
    """Which of ``count`` samples are seen ``reach`` beyond either end; any reach will do."""
    period = max(2 * count - 2, 1)
    at = torch.arange(-reach, count + reach).abs() % period
    return torch.minimum(at, period - at) if count > 1 else torch.zeros_like(at)
