"""The contract of everything that restores: networks and classical methods alike.

Restoring is one shape: views (B, T, C, H, W) in, one image (B, C, sH, sW) out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from l1bsr_geo.geometry.model import Aligned

Padding: TypeAlias = Literal["edge", "reflect"]
"""What stands beyond the last row and column where an image is made larger."""


@dataclass(frozen=True)
class ModelSpec:
    """What the rest of the package must know to run a restorer.

    Attributes:
        name: registry name, a paper's name where there is one.
        bands: the bands it takes, in order; None where any will do.
        channels: how many bands it takes where any will do; None where also any number will.
        frames: least and most views.
        scale: fine pixels to a pixel, per axis.
        aligned: which fine pixel sits where (GeoGrid.zoom).
        halo: pixels of context around a tile that the result depends on, kernel and motion
            together, beyond which it is finite; checked against an impulse probe.
        gain: DN per unit of the restorer's input (it sees DN / gain and returns result / gain).
        flow: whether it takes the motion of every view to the reference.
        exposures: whether it takes the exposure of every frame.
        multiple: height and width of the input must be multiples of this.
        padding: what others are made larger with.
        scene_statistics: whether it pools over the whole image (channel attention), so that tiles
            agree only when the pooled statistics are taken once per scene.
        result_bands: those of the result, where they are not those of the views.
        source: paper and place.
    """

    name: str
    bands: tuple[str, ...] | None = None
    channels: int | None = None
    frames: tuple[int, int] = (1, 1)
    scale: int = 2
    aligned: Aligned = "corner"
    halo: int = 0
    gain: float = 1.0
    flow: bool = False
    exposures: bool = False
    multiple: int = 1
    padding: Padding = "edge"
    scene_statistics: bool = False
    result_bands: tuple[str, ...] | None = None
    source: str = ""

    @property
    def band_count(self) -> int | None:
        """How many bands it takes; None where any number will do."""
        return self.channels if self.bands is None else len(self.bands)


@runtime_checkable
class Restorer(Protocol):
    """A callable with a spec; a torch.nn.Module is the usual one."""

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        ...

    def __call__(self, views: torch.Tensor, flow: torch.Tensor | None = None) -> torch.Tensor:
        """Restore.

        Args:
            views: (B, T, C, H, W) [DN / spec.gain].
            flow: (B, T, C, 2, H, W) [px] where ``spec.flow``: reference pixel p reads view (t, c)
                at p + flow(p).

        Returns:
            (B, C, scale * H, scale * W) [DN / spec.gain]; with ``spec.result_bands``, those.
        """
        ...


@runtime_checkable
class BurstRestorer(Restorer, Protocol):
    """A restorer of frames of different exposures (``spec.exposures``)."""

    def __call__(
        self,
        views: torch.Tensor,
        flow: torch.Tensor | None = None,
        *,
        exposures: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Restore.

        Args:
            views: (B, T, C, H, W) [DN / spec.gain], as exposed; the first frame is the reference,
                the others are NaN where they have no data.
            flow: (B, T, C, 2, H, W) [px].
            exposures: (B, T) in any unit; None where they are alike.

        Returns:
            (B, C, scale * H, scale * W) [DN / spec.gain at the exposure of the first frame].
        """
        ...


@runtime_checkable
class EncodingRestorer(BurstRestorer, Protocol):
    """A restorer whose work on a frame serves every reference."""

    def restore_references(
        self,
        views: torch.Tensor,
        flow: torch.Tensor | None,
        references: Sequence[int],
        *,
        exposures: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Restore several frames of a burst, each with the help of all.

        Args:
            views: as for a call.
            flow: as for a call: against the first frame.
            references: which frames to restore.
            exposures: as for a call.

        Returns:
            (R, B, C, scale * H, scale * W) [DN / spec.gain at the exposure of the first frame], on
            the zoomed grid of each reference.
        """
        ...


@runtime_checkable
class SequenceRestorer(Restorer, Protocol):
    """A restorer of the middle frame of a stack in order of time, which can be told the noise."""

    def __call__(
        self,
        views: torch.Tensor,
        flow: torch.Tensor | None = None,
        *,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Restore the middle frame.

        Args:
            views: (B, T, C, H, W) [DN / spec.gain] in order of time, T odd.
            flow: as for a Restorer.
            noise: standard deviation [DN / spec.gain], (B, 1, H, W); None is what is usual.

        Returns:
            (B, C, H, W) [DN / spec.gain].
        """
        ...

    def restore_sequence(
        self, frames: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Restore every frame; what windows share is computed once.

        Args:
            frames: (N, C, H, W) [DN / spec.gain] in order of time; mirrored beyond the ends.
            noise: standard deviation [DN / spec.gain] in each frame, (N, 1, H, W).

        Returns:
            (N, C, H, W) [DN / spec.gain].
        """
        ...


Statistics: TypeAlias = Mapping[str, npt.NDArray[np.float32 | np.float64]]
"""What a network pools over a whole scene: name to averages, as ``Model.scene_statistics`` gives
them; small, and safe to send to other processes."""


@runtime_checkable
class SceneRestorer(Restorer, Protocol):
    """A restorer that pools over the whole image (``spec.scene_statistics``)."""

    def __call__(
        self,
        views: torch.Tensor,
        flow: torch.Tensor | None = None,
        statistics: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Restore; with ``statistics`` nothing is pooled and the receptive field is finite."""
        ...

    def scene_statistics(self, views: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is pooled on these views, averaged over the batch; may be averaged over tiles."""
        ...
