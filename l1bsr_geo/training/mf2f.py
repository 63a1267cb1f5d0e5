"""MF2F: a network of several frames, tuned on one noisy video by a frame that it does not see.

The neighbours t - 1 and t + 1 of the reference t are held out. The network restores t from frames
among which they are not; what it restores is warped onto each and compared with it there. The
frames around t that are seen are therefore dilated while training (t - 4, t - 2, t, t + 2, t + 4),
and the natural ones (t - 2 ... t + 2) when the network is used.

Source: Dewil et al., Self-supervised training for blind multi-frame video denoising, WACV 2021
(arXiv 2004.06957). Published is t - 1 alone; the second neighbour costs no pass of the network and
halves the noise of what is compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.ops.occlusion import find_supported
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.training.burst_loss import psnr
from l1bsr_geo.training.normalisation import Statistics, check_statistics, freeze_statistics
from l1bsr_geo.training.objective import Batch, Example, Figures

Teacher: TypeAlias = Callable[[Tensor], Tensor]
"""The natural stack (B, T, C, H, W) [DN / gain] to the reference, restored, (B, C, H, W)."""


@dataclass(frozen=True)
class MF2FObjective:
    """The restored reference, warped onto neighbours that were not seen, is compared with them.

    Batches are windows of a video, an odd number of frames of which the middle one is the
    reference; ``flow`` (B, K, 1, 2, H, W) [px]: pixel q of the k-th held-out neighbour shows what
    the reference shows at q + flow(q); ``visible`` and ``occluded`` (B, K, H, W).

    Attributes:
        stack: frames that are seen while training, against the reference; its middle is 0.
        targets: the K frames that are held out, against the reference.
        gain: DN per unit of the network.
        sigma: noise that the network is told where a batch tells none [of gain].
        border: [px] of a neighbour that is not compared.
        statistics: of batch normalisation while training: ``"running"``, those that the network
            has; ``"batch"``, those of the frames at hand, which slowly enter the network's own.
            The weights of the normalisation are trained in either case.
        teacher: restores the reference too; where given, it teaches what a neighbour cannot:
            what is hidden in it.
        teach_natural: the teacher is compared with what the network makes of the natural stack, not
            of the dilated one: better where all the video is gone through many times, for the price
            of one more pass.

    Raises:
        BadOptionError: a held-out frame would be seen, or there is none; the stack has no middle;
            there are no such statistics.
    """

    stack: tuple[int, ...] = (-4, -2, 0, 2, 4)
    targets: tuple[int, ...] = (-1, 1)
    gain: float = 255.0
    sigma: float = 25 / 255
    border: int = 2
    statistics: Statistics = "running"
    teacher: Teacher | None = None
    teach_natural: bool = False

    def __post_init__(self) -> None:
        seen = [target for target in self.targets if target in self.stack]
        if seen or not self.targets:
            found = f"frame {seen[0]:+d}, which is in the stack {self.stack}" if seen else "none"
            raise BadOptionError(
                f"targets: found {found}; a network that sees what it is compared with learns to "
                "copy its noise: hold out frames that are not in the stack"
            )
        steps = set(np.diff(self.stack).tolist())
        if len(self.stack) % 2 == 0 or self.stack[len(self.stack) // 2] or len(steps) > 1:
            raise BadOptionError(
                f"stack: found {self.stack}, expected evenly spaced frames around 0, such as "
                "-4, -2, 0, 2, 4"
            )
        check_statistics(self.statistics)

    @property
    def reach(self) -> int:
        """Frames on each side of the reference that a window must have."""
        return max(map(abs, (*self.stack, *self.targets)))

    @property
    def natural(self) -> tuple[int, ...]:
        """The frames that are seen when the network is used, against the reference."""
        half = len(self.stack) // 2
        return tuple(range(-half, half + 1))

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """The dilated stack; target are the neighbours (B, K, C, H, W), places their flow.

        Raises:
            BadInputError: there are too few frames around the reference, or no flow to each.
        """
        if batch.flow is None or batch.flow.shape[1] != len(self.targets):
            told = 0 if batch.flow is None else batch.flow.shape[1]
            raise BadInputError(
                f"these frames have the flow of {told} neighbours, those of {self.targets} are "
                "needed: without flow they cannot be compared"
            )
        views = choose_stack(batch.views, self.stack) / self.gain
        held = choose_stack(batch.views, self.targets) / self.gain
        flow = batch.flow[:, :, 0]
        weights = find_readable(flow, self.border)
        if batch.visible is not None:
            weights = weights * batch.visible
        return Example(
            views, None, None, held, flow, self.tell_noise(batch.noise, batch.views), weights
        )

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The restored reference (B, C, H, W) as each neighbour would show it, (B, K, C, H, W)."""
        places = cast("Tensor", example.places)
        copies = restored.float()[:, None].expand(-1, places.shape[1], -1, -1, -1)
        seen = warp(copies.flatten(0, 1), places.flatten(0, 1))
        return seen.reshape(*places.shape[:2], *seen.shape[1:])

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean over all pixels of what differs where it may be compared [DN / gain]."""
        if self.statistics == "running":
            freeze_statistics(network)
        example = self.hold_out(batch, rng)
        restored = self._restore(network, example.views, example.noise)
        weights = cast("Tensor", example.weights)
        loss = _compare(self.observe(restored, example), example.target, weights)
        parts = {"compared": weights.mean().detach()}
        if self.teacher is None or batch.occluded is None:
            return loss, parts
        natural = choose_stack(batch.views, self.natural) / self.gain
        with torch.no_grad():
            taught = self.observe(self.teacher(natural), example)
        if self.teach_natural:
            restored = self._restore(network, natural, example.noise)
        hidden = find_readable(cast("Tensor", example.places), self.border) * batch.occluded
        lesson = _compare(self.observe(restored, example), taught, hidden)
        return loss + lesson, parts | {"held_out": loss.detach(), "teacher": lesson.detach()}

    @torch.no_grad()
    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """Minus the loss; beside it the PSNR of the natural stack where there is truth [dB].

        The PSNR decides only where there is no motion to compare by: on simulated videos.
        """
        figures = {}
        if batch.truth is not None:
            restored = self.restore(network, batch)
            figures["psnr"] = float(psnr(restored, batch.truth, peak=self.gain).mean())
        if batch.flow is None:
            return {"score": figures["psnr"], **figures}
        loss, _ = self.loss(network, batch, np.random.default_rng(0))
        return {"score": -float(loss), **figures}

    def restore(self, network: nn.Module, batch: Batch) -> Tensor:
        """The reference as the network is used, (B, C, H, W) [DN]."""
        views = choose_stack(batch.views, self.natural) / self.gain
        return self._restore(network, views, self.tell_noise(batch.noise, batch.views)) * self.gain

    def tell_noise(self, noise: Tensor | None, like: Tensor) -> Tensor:
        """What a network is told of the noise [of gain]: a map [DN], or the usual one.

        Args:
            noise: (B, 1, H, W) [DN], or None.
            like: (B, ..., H, W), on the device.
        """
        if noise is not None:
            return noise.to(like.device) / self.gain
        return like.new_full((len(like), 1, *like.shape[-2:]), self.sigma)

    def _restore(self, network: nn.Module, views: Tensor, noise: Tensor | None) -> Tensor:
        return cast("Tensor", network(views, noise=noise)).float()


def choose_stack(views: Tensor, stack: Sequence[int]) -> Tensor:
    """Some frames of windows (B, T, C, H, W), counted from the middle one.

    Raises:
        BadInputError: a window does not reach so far.
    """
    frames = views.shape[1]
    half = frames // 2
    if frames % 2 == 0 or max(map(abs, stack)) > half:
        raise BadInputError(
            f"windows of {frames} frames; an odd number was expected, with "
            f"{max(map(abs, stack))} on each side of the middle one"
        )
    return views[:, [half + k for k in stack]]


def find_readable(flow: Tensor, border: int = 0) -> Tensor:
    """Where bicubic reading at p + flow(p) stays inside the image, (..., H, W) of 0 and 1.

    Args:
        flow: (..., 2, H, W) [px].
        border: [px] of the grid of the flow that counts as not readable.
    """
    height, width = flow.shape[-2:]
    readable = find_supported(flow.reshape(-1, 2, height, width)).to(flow)
    within = torch.zeros_like(readable)
    within[..., border : height - border, border : width - border] = 1
    return (within * readable).reshape(*flow.shape[:-3], height, width)


def _compare(seen: Tensor, held: Tensor, weights: Tensor) -> Tensor:
    """Of (B, K, C, H, W), with weights (B, K, H, W)."""
    return (weights[:, :, None] * (seen - held).abs()).mean()
