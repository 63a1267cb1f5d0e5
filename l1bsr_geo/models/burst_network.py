"""The network that DSA and HDR-DSP share: encode frames, splat and pool their features, decode.

Frames are encoded, splatted and pooled one after the other, so that memory does not grow with their
number (training keeps what gradients need). What is worked out for a frame does not depend on the
reference: ``encode_frames`` does it once for all references of a burst.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import BurstViews, blur, enlarge_centred
from l1bsr_geo.models.flownet import FlowNet
from l1bsr_geo.models.pooling import Pooling, PoolingKind
from l1bsr_geo.ops.flow import change_reference, invert_flow
from l1bsr_geo.ops.splat import Splat
from l1bsr_geo.ops.warp import warp

_FLOW_GAIN = 3.4  # the motion estimator was trained on DN / 1000
_MANY = 15  # frames, by which the weight channel is divided


@dataclass(frozen=True)
class EncodedFrame:
    """All that is worked out for a frame, whatever the reference; bands have joined the batch.

    Attributes:
        features: (N, 64, H, W).
        radiance: (N, 1, H, W): what was exposed, over the exposure ratio.
        known: (N, 1, H, W), one where there are data.
        exposure: (N, 1, 1, 1), ratio to the first frame's.
    """

    features: Tensor
    radiance: Tensor
    known: Tensor
    exposure: Tensor


class BurstNetwork(nn.Module):
    """Motion estimator, encoder, feature shift-and-pool, decoder.

    Parameter names within ``fnet``, ``encoder`` and ``decoder`` are the published ones.

    Args:
        spec: what the rest of the package must know.
        pooling: statistics over frames that the decoder is given, each of all features.
        base_detail: whether the smooth part of every frame bypasses the network, which makes the
            result robust to wrong exposures.
        noise_aware: whether the encoder is also given the frame as exposed, whose brightness tells
            its noise.

    Source: Nguyen et al., DSA (CVPRW EarthVision 2021) and HDR-DSP (CVPR 2022, arXiv 2205.02031).
    """

    def __init__(
        self,
        spec: ModelSpec,
        pooling: Sequence[PoolingKind] = ("avg", "max", "std"),
        base_detail: bool = True,
        noise_aware: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.pooling = tuple(pooling)
        self.base_detail = base_detail
        self.noise_aware = noise_aware
        self.fnet = FrameFlow()
        self.encoder = Encoder(1 + noise_aware)
        self.decoder = Decoder(64 * len(self.pooling) + 1)

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN / gain], as exposed.
            flow: (B, T, C, 2, H, W) [px]; estimated by ``fnet`` where None.
            exposures: (B, T).

        Returns:
            (B, C, scale * H, scale * W) [DN / gain at the exposure of the first frame].
        """
        burst = BurstViews.of(views, flow, exposures).without_empty()
        encoded = (self._encode(burst, t) for t in range(len(burst)))
        return burst.join_bands(self._fuse(encoded, burst.flow))

    def encode_frames(self, views: Tensor, exposures: Tensor | None = None) -> list[EncodedFrame]:
        """The part of the work that every reference shares; memory grows with the frames.

        Args:
            views: (B, T, C, H, W) [DN / gain], as exposed.
            exposures: (B, T).
        """
        burst = BurstViews.of(views, None, exposures)
        return [self._encode(burst, t) for t in range(len(burst))]

    def fuse_frames(
        self, frames: Sequence[EncodedFrame], flow: Tensor | None = None, reference: int = 0
    ) -> Tensor:
        """Restore one reference from encoded frames.

        Args:
            frames: of ``encode_frames``, or some of them.
            flow: (N, T, 2, H, W) [px]: pixel p of this reference reads frame t at p + flow(p);
                estimated where None. N is the batch with the bands in it.
            reference: which of ``frames`` the motion is estimated against; not used with a flow.

        Returns:
            (N, scale * H, scale * W) [DN / gain at the exposure of the burst's first frame].
        """
        return self._fuse(frames, flow, frames[reference])

    def restore_references(
        self,
        views: Tensor,
        flow: Tensor | None,
        references: Sequence[int],
        *,
        exposures: Tensor | None = None,
    ) -> Tensor:
        """Restore several frames of a burst; see EncodingRestorer."""
        burst = BurstViews.of(views, flow, exposures)
        frames = self.encode_frames(views, exposures)
        fine = []
        for reference in references:
            seen = None if burst.flow is None else change_reference(burst.flow, reference)
            fine.append(burst.join_bands(self.fuse_frames(frames, seen, reference)))
        return torch.stack(fine)

    def _encode(self, burst: BurstViews, t: int) -> EncodedFrame:
        pixels, exposure = burst.pixels(t), burst.exposure(t)
        radiance = pixels / exposure
        seen = radiance - blur(radiance) if self.base_detail else radiance
        if self.noise_aware:
            seen = torch.cat([seen, pixels], 1)
        return EncodedFrame(self.encoder(seen), radiance, burst.known(t), exposure)

    def _fuse(
        self,
        frames: Iterable[EncodedFrame],
        flow: Tensor | None,
        reference: EncodedFrame | None = None,
    ) -> Tensor:
        """Frames may come from a generator; the first is then the reference."""
        pooling = Pooling(self.pooling)
        base = exposure = torch.zeros(())
        for t, frame in enumerate(frames):
            reference = reference or frame
            if not bool(frame.known.any()):
                continue
            forward, read = self._motion(frame, reference, None if flow is None else flow[:, t])
            places = Splat(forward, self.spec.scale)
            pooling.add(places.add(frame.features * frame.known), places.add(frame.known))
            if self.base_detail:
                smooth = warp(blur(frame.radiance), read)
                base = base.to(smooth) + frame.exposure * smooth
                exposure = exposure.to(smooth) + frame.exposure
        fine: Tensor = self.decoder(pooling.result(_MANY))
        if self.base_detail:
            fine = fine + enlarge_centred(base / exposure, self.spec.scale)
        return fine[:, 0]

    def _motion(
        self, frame: EncodedFrame, reference: EncodedFrame, flow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Where a frame's samples belong, and the flow that reads the frame; (N, 2, H, W) each."""
        if flow is not None:
            return invert_flow(flow), flow
        if frame is reference:
            still = torch.zeros_like(frame.radiance).expand(-1, 2, -1, -1)
            return still, still
        forward = self.fnet.estimate(frame.radiance, reference.radiance)
        return forward, invert_flow(forward)


class FrameFlow(FlowNet):
    """FNet: where the samples of the first of two frames belong in the second."""

    def __init__(self) -> None:
        super().__init__((32, 64, 128), (256, 128, 64), reach=5.0)

    def estimate(self, frame: Tensor, reference: Tensor) -> Tensor:
        """The motion of a frame's samples to a reference.

        Args:
            frame: (N, 1, H, W) radiance [DN / 3400].
            reference: the same.

        Returns:
            (N, 2, H, W) [px]: the sample at q of the frame belongs at q + motion(q).
        """
        pair = [_FLOW_GAIN * blur(image) for image in (frame, reference)]
        motion: Tensor = self(torch.cat(pair, 1))
        return motion


class Encoder(nn.Module):
    """Features of a frame, at its own resolution.

    Args:
        channels: of the input.
        blocks: residual blocks.
    """

    def __init__(self, channels: int, blocks: int = 4) -> None:
        super().__init__()
        self.inputConv = _conv(channels, 64)
        self.ResBlocks = nn.Sequential(*[_Block() for _ in range(blocks)])
        self.outputConv = _conv(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 64, H, W)."""
        out: Tensor = self.outputConv(functional.relu(self.ResBlocks(self.inputConv(x))))
        return out


class Decoder(nn.Module):
    """An image of pooled features, on the fine grid.

    Args:
        channels: of the input.
        blocks: residual blocks.
    """

    def __init__(self, channels: int, blocks: int = 10) -> None:
        super().__init__()
        self.inputConv = _conv(channels, 64)
        self.ResBlocks = nn.Sequential(*[_Block() for _ in range(blocks)])
        self.outputConv = _conv(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 1, H, W)."""
        out: Tensor = self.outputConv(functional.relu(self.ResBlocks(self.inputConv(x))))
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(64, 64)
        self.conv2 = _conv(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(functional.relu(self.conv1(x)))
        return out


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")
