"""The network that DSA and HDR-DSP share: encode frames, splat and pool their features, decode.

Frames are encoded, splatted and pooled one after the other, so that memory does not grow with their
number (training keeps what gradients need). What is worked out for a frame does not depend on the
reference: ``encode_frames`` does it once for all references of a burst.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOTION, BurstViews, blur, enlarge_centred
from l1bsr_geo.models.flownet import FlowNet
from l1bsr_geo.models.pooling import Pooling, PoolingKind
from l1bsr_geo.ops.flow import change_reference, invert_flow
from l1bsr_geo.ops.splat import Splat
from l1bsr_geo.ops.warp import warp

Base: TypeAlias = Literal["none", "detail", "average"]
Padding: TypeAlias = Literal["reflect", "zeros"]

_FLOW_GAIN = 3.4  # the motion estimator was trained on DN / 1000
_MANY = 15  # frames, by which the weight channel is divided
_MIDDLE = 0.4  # [full range] of the radiance, so that networks see both signs
_SMOOTH = 0.5  # [coarse px] blur of the shift-and-add that bypasses the network
_NONE = 1e-6  # a weight as small as this is no data


@dataclass(frozen=True)
class Sizes:
    """How large a network is; the default is the published size.

    Attributes:
        width: channels inside.
        encoder_blocks: residual blocks of the encoder.
        decoder_blocks: residual blocks of the decoder.
        contrast: the network sees radiance times this, and what it gives is divided by it: texture
            is a few hundredths of the full range, too small for a quick start of the training.
            With any but 1 an untrained network gives its base alone.
        estimates_flow: whether there is a motion estimator; without it no flow is no motion.
        padding: of the convolutions; with zeros they train 1.6 times as fast on a CPU.
    """

    width: int = 64
    encoder_blocks: int = 4
    decoder_blocks: int = 10
    contrast: float = 1.0
    estimates_flow: bool = True
    padding: Padding = "reflect"

    def reach(self, scale: int) -> int:
        """How far a pixel of the result looks, with the motion and two pixels to spare [px]."""
        encoder = 2 * self.encoder_blocks + 2
        decoder = math.ceil((2 * self.decoder_blocks + 2) / scale)
        return MOTION + encoder + 1 + decoder + 2


PUBLISHED = Sizes()


@dataclass(frozen=True)
class EncodedFrame:
    """All that is worked out for a frame, whatever the reference; bands have joined the batch.

    Attributes:
        features: (N, width, H, W).
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
        base: what bypasses the network, which then restores only the rest. ``"detail"`` is the
            published base of HDR-DSP: the smooth part of every frame, warped and averaged, which
            makes the result robust to wrong exposures. ``"average"`` is a smoothed shift-and-add,
            a start from which small networks learn faster; the encoder still sees whole frames.
        noise_aware: whether the encoder is also given the frame as exposed, whose brightness tells
            its noise.
        sizes: of encoder and decoder; the published ones by default.

    Source: Nguyen et al., DSA (CVPRW EarthVision 2021) and HDR-DSP (CVPR 2022, arXiv 2205.02031).
    """

    def __init__(
        self,
        spec: ModelSpec,
        pooling: Sequence[PoolingKind] = ("avg", "max", "std"),
        base: Base = "detail",
        noise_aware: bool = True,
        sizes: Sizes = PUBLISHED,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.pooling = tuple(pooling)
        self.base = base
        self.noise_aware = noise_aware
        self.contrast = sizes.contrast
        self.fnet = FrameFlow() if sizes.estimates_flow else None
        width, padding = sizes.width, sizes.padding
        self.encoder = Encoder(1 + noise_aware, sizes.encoder_blocks, width, padding)
        channels = width * len(self.pooling) + 1
        self.decoder = Decoder(channels, sizes.decoder_blocks, width, padding)
        if sizes.contrast != 1:  # training starts at the base alone
            nn.init.zeros_(self.decoder.outputConv.weight)
            nn.init.zeros_(cast("Tensor", self.decoder.outputConv.bias))

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN / gain], as exposed.
            flow: (B, T, C, 2, H, W) [px]; where None it is estimated by ``fnet``, or none without.
            exposures: (B, T).

        Returns:
            (B, C, scale * H, scale * W) [DN / gain at the exposure of the first frame].
        """
        base, detail = self.restore_parts(views, flow, exposures=exposures)
        return base + detail

    def restore_parts(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What bypasses the network, and what it restores: they add up to its result.

        Args:
            views: as for a call.
            flow: as for a call.
            exposures: as for a call.

        Returns:
            Base and detail, (B, C, scale * H, scale * W) each, as the result of a call.
        """
        burst = BurstViews.of(views, flow, exposures).without_empty()
        encoded = (self._encode(burst, t) for t in range(len(burst)))
        base, detail = self._fuse(encoded, burst.flow)
        return burst.join_bands(base), burst.join_bands(detail)

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
        base, detail = self._fuse(frames, flow, frames[reference])
        return base + detail

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
        seen = radiance
        if self.base == "detail":
            seen = radiance - blur(radiance)
        elif self.base == "average":
            seen = radiance - _MIDDLE
        seen = self.contrast * seen
        if self.noise_aware:
            seen = torch.cat([seen, pixels], 1)
        return EncodedFrame(self.encoder(seen), radiance, burst.known(t), exposure)

    def _fuse(
        self,
        frames: Iterable[EncodedFrame],
        flow: Tensor | None,
        reference: EncodedFrame | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Base and detail; frames may come from a generator, whose first is the reference."""
        pooling = Pooling(self.pooling)
        base = weight = torch.zeros(())
        for t, frame in enumerate(frames):
            reference = reference or frame
            if not bool(frame.known.any()):
                continue
            forward, read = self._motion(frame, reference, None if flow is None else flow[:, t])
            places = Splat(forward, self.spec.scale)
            known = places.add(frame.known)
            pooling.add(places.add(frame.features * frame.known), known)
            if self.base == "detail":
                smooth = warp(blur(frame.radiance), read)
                base = base.to(smooth) + frame.exposure * smooth
                weight = weight.to(smooth) + frame.exposure
            elif self.base == "average":
                base = base.to(known) + places.add(frame.radiance * frame.known)
                weight = weight.to(known) + known
        detail: Tensor = self.decoder(pooling.result(_MANY)).float() / self.contrast
        if self.base == "detail":
            base = enlarge_centred(base / weight, self.spec.scale)
        elif self.base == "average":
            sigma = _SMOOTH * self.spec.scale
            base = blur(base, sigma) / blur(weight, sigma).clamp_min(_NONE)
        else:
            base = torch.zeros_like(detail)
        return base[:, 0], detail[:, 0]

    def _motion(
        self, frame: EncodedFrame, reference: EncodedFrame, flow: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Where a frame's samples belong, and the flow that reads the frame; (N, 2, H, W) each."""
        if flow is not None:
            return invert_flow(flow), flow
        if frame is reference or self.fnet is None:
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
        width: channels inside and of the features.
        padding: of the convolutions.
    """

    def __init__(
        self, channels: int, blocks: int = 4, width: int = 64, padding: Padding = "reflect"
    ) -> None:
        super().__init__()
        self.inputConv = _conv(channels, width, padding)
        self.ResBlocks = nn.Sequential(*[_Block(width, padding) for _ in range(blocks)])
        self.outputConv = _conv(width, width, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, H, W)."""
        out: Tensor = self.outputConv(functional.relu(self.ResBlocks(self.inputConv(x))))
        return out


class Decoder(nn.Module):
    """An image of pooled features, on the fine grid.

    Args:
        channels: of the input.
        blocks: residual blocks.
        width: channels inside.
        padding: of the convolutions.
    """

    def __init__(
        self, channels: int, blocks: int = 10, width: int = 64, padding: Padding = "reflect"
    ) -> None:
        super().__init__()
        self.inputConv = _conv(channels, width, padding)
        self.ResBlocks = nn.Sequential(*[_Block(width, padding) for _ in range(blocks)])
        self.outputConv = _conv(width, 1, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 1, H, W)."""
        out: Tensor = self.outputConv(functional.relu(self.ResBlocks(self.inputConv(x))))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, padding: Padding) -> None:
        super().__init__()
        self.conv1 = _conv(width, width, padding)
        self.conv2 = _conv(width, width, padding)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(functional.relu(self.conv1(x)))
        return out


def _conv(channels: int, width: int, padding: Padding) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode=padding)
