"""FastDVDnet: a frame of a video without its noise, by the frame and two on either side of it.

Two stages of one U-Net design. The first restores the middle of three frames, for t - 1, t and
t + 1; the second restores the middle of those three results. Motion is not estimated. A result of
the first stage serves every window that holds its three frames, so a sequence costs two U-Nets a
frame and not four.

A pixel of the result depends on pixels at most 80 px away: each stage has 37 px of convolutions and
3 px that come from working on a lattice of 4 px.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.channels import fold_bands, unfold_bands
from l1bsr_geo.models.dncnn import start_quietly

USUAL_NOISE = 25 / 255
"""What the network is told where nobody knows the noise: standard deviation [full range]."""

_TOGETHER = 1 << 17  # px of a sequence at a time, some 150 MB
_LATTICE = 4  # px: the U-Net halves its images twice
_FRAMES = 5


def make_spec(name: str = "fastdvdnet", channels: int = 3, gain: float = 255.0) -> ModelSpec:
    """What the rest of the package must know of a FastDVDnet."""
    return ModelSpec(
        name=name,
        channels=None if channels == 1 else channels,
        frames=(_FRAMES, _FRAMES),
        scale=1,
        halo=80,
        gain=gain,
        multiple=_LATTICE,
        padding="reflect",
        source="Tassano et al., FastDVDnet, CVPR 2020 (arXiv 1907.01361)",
    )


class FastDVDnet(nn.Module):
    """Five frames in, the middle one restored; parameter names as in the published weights.

    Args:
        channels: bands of a frame. With one, each band of a frame is restored by itself.
        width: channels inside at full size; 32 is the published network.
        bias: whether convolutions have biases: those of MF2F do, the published network's do not.
        gain: DN per unit of its input; the published weights are for images of 8 bits.
        name: registry name.

    Source: Tassano et al., CVPR 2020 (arXiv 1907.01361).
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        bias: bool = False,
        gain: float = 255.0,
        name: str = "fastdvdnet",
    ) -> None:
        super().__init__()
        self.spec = make_spec(name, channels, gain)
        self.channels = channels
        self.temp1 = Stage(channels, width, bias)
        self.temp2 = Stage(channels, width, bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for stage in (self.temp1, self.temp2):
            start_quietly(stage.outc.convblock[-1])

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, noise: Tensor | None = None
    ) -> Tensor:
        """Restore the middle frame; see SequenceRestorer.

        Args:
            views: (B, 5, C, H, W) [DN / gain] in order of time; any H and W.
            flow: not used.
            noise: standard deviation [DN / gain], (B, 1, H, W); or (B, 3, H, W): what the three
                first stages are told, in order of time; the second is told what the middle one is.
                H and W may be 1. ``USUAL_NOISE`` where None.

        Returns:
            (B, C, H, W) [DN / gain].

        Raises:
            BadInputError: frames or bands that it does not take.
        """
        if views.shape[1] != _FRAMES:
            raise BadInputError(f"{self.spec.name} takes {_FRAMES} frames; got {views.shape[1]}")
        frames = _pad(fold_bands(views, self.channels, self.spec.name))
        told = _noise_maps(noise, views.shape[-2:], frames, roles=3)
        first = [self.temp1(frames[:, k : k + 3].unbind(1), told[:, k, None]) for k in range(3)]
        return _crop(self.temp2(first, told[:, 1, None]), views)

    def restore_sequence(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        """Restore every frame of a sequence, as calls with its windows of five frames would.

        Each result of the first stage is computed once. Beyond the ends frames are mirrored: the
        one before the first is the second.

        Args:
            frames: (N, C, H, W) [DN / gain] in order of time.
            noise: standard deviation [DN / gain] in each frame, (N, 1, H, W), where N, H and W may
                be 1: the stages around frame t are told that of frame t. ``USUAL_NOISE`` where
                None.

        Returns:
            (N, C, H, W) [DN / gain].

        Raises:
            BadInputError: bands that it does not take.
        """
        folded = _pad(fold_bands(frames[None], self.channels, self.spec.name)).transpose(0, 1)
        told = _noise_maps(noise, frames.shape[-2:], folded, roles=1)
        count = len(frames)
        around = [[mirror(t + k, count) for k in (-1, 0, 1)] for t in range(-1, count + 1)]
        windows = torch.tensor(around, device=frames.device)
        first = _restore_windows(self.temp1, folded, windows, told[windows[:, 1]])
        windows = torch.arange(count + 2, device=frames.device).unfold(0, 3, 1)
        return _crop(_restore_windows(self.temp2, first, windows, told).flatten(0, 1), frames[None])


def mirror(t: int, count: int) -> int:
    """Which of ``count`` frames stands at time t: beyond the ends they come again, backwards."""
    period = max(2 * count - 2, 1)
    return min(t % period, -t % period)


class Stage(nn.Module):
    """A U-Net that restores the middle of three frames.

    Args:
        channels: of a frame.
        width: channels inside at full size; twice as many at half, four times at a quarter.
        bias: whether convolutions have biases.
    """

    def __init__(self, channels: int, width: int, bias: bool) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        gathered = 3 * (30 * width // 32)  # the frames' own first features
        self.inc = _Block(
            *_active(_conv(3 * (channels + 1), gathered, bias, groups=3)),
            *_active(_conv(gathered, width, bias)),
        )
        self.downc0 = _Block(*_active(_conv(width, half, bias, stride=2)), _pair(half, bias))
        self.downc1 = _Block(*_active(_conv(half, quarter, bias, stride=2)), _pair(quarter, bias))
        self.upc2 = _Block(_pair(quarter, bias), _conv(quarter, 4 * half, bias), nn.PixelShuffle(2))
        self.upc1 = _Block(_pair(half, bias), _conv(half, 4 * width, bias), nn.PixelShuffle(2))
        self.outc = _Block(*_active(_conv(width, width, bias)), _conv(width, channels, bias))

    def forward(self, frames: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Restore.

        Args:
            frames: three of (N, channels, H, W), in order of time.
            noise: (N, 1, H, W), or (1, 1, H, W) for all.

        Returns:
            (N, channels, H, W), in full precision whatever the convolutions are in.
        """
        noise = noise.expand(len(frames[1]), -1, -1, -1)
        full = self.inc(torch.cat([image for frame in frames for image in (frame, noise)], 1))
        half = self.downc0(full)
        half = half + self.upc2(self.downc1(half))
        residual: Tensor = self.outc(full + self.upc1(half))
        return frames[1] - residual.to(frames[1])


def _restore_windows(stage: Stage, frames: Tensor, windows: Tensor, told: Tensor) -> Tensor:
    """The middle of every window, (N, B, C, H, W): of frames (M, B, C, H, W), some together.

    Windows (N, 3) are numbers of frames; what is told of the noise is (N, 1, H, W).
    """
    batch, *size = frames.shape[1], *frames.shape[-2:]
    together = max(1, _TOGETHER // (batch * size[0] * size[1]))
    restored = []
    for start in range(0, len(windows), together):
        part = slice(start, start + together)
        three = [frames[number].flatten(0, 1) for number in windows[part].unbind(1)]
        middle = stage(three, told[part].repeat_interleave(batch, 0))
        restored.append(middle.unflatten(0, (-1, batch)))
    return torch.cat(restored)


class _Block(nn.Module):
    """Layers one after the other, under the name that published weights have for them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.convblock = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convblock(x)
        return out


def _pair(width: int, bias: bool) -> _Block:
    return _Block(*_active(_conv(width, width, bias)), *_active(_conv(width, width, bias)))


def _active(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)


def _conv(channels: int, width: int, bias: bool, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride=stride, padding=1, groups=groups, bias=bias)


def _noise_maps(noise: Tensor | None, size: Sequence[int], frames: Tensor, roles: int) -> Tensor:
    """(N, roles, H, W) for padded frames (N, ..., H, W) that were of a size before."""
    shape = (len(frames), roles, *frames.shape[-2:])
    if noise is None:
        return frames.new_full((1, 1, 1, 1), USUAL_NOISE).expand(shape)
    noise = noise.expand(-1, roles, *size)
    if len(noise) > 1:  # bands have joined the batch, and all of a frame are told the same
        noise = noise.repeat_interleave(len(frames) // len(noise), 0)
    return _pad(noise).expand(shape)


def _pad(images: Tensor) -> Tensor:
    """(..., H, W) below and to the right to the lattice, by reflection where there is enough."""
    below, right = (-n % _LATTICE for n in images.shape[-2:])
    if not below and not right:
        return images
    fits = below < images.shape[-2] and right < images.shape[-1]
    flat = images.flatten(0, -4) if images.ndim > 4 else images
    mode = "reflect" if fits else "replicate"
    padded = functional.pad(flat, (0, right, 0, below), mode=mode)
    return padded.reshape(*images.shape[:-2], *padded.shape[-2:])


def _crop(image: Tensor, views: Tensor) -> Tensor:
    """Bands back from the batch, at the size of the views (B, T, C, H, W)."""
    bands, height, width = views.shape[2:]
    return unfold_bands(image[..., :height, :width], bands)
