"""Motion of bands and frames against their reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.grid import Window


@dataclass(frozen=True)
class FlowField:
    """A smooth flow of every band to the reference, sampled at nodes of the reference grid.

    Attributes:
        nodes: (C, 2, rows, columns) float32 [px], (dx, dy): reference pixel p reads band c at
            p + flow(p).
        step: node spacing [px].
        origin: ``(x, y)`` of the first node, in pixel coordinates of the reference grid.
    """

    nodes: npt.NDArray[np.float32]
    step: float
    origin: tuple[float, float] = (0.0, 0.0)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """The flow at every pixel centre of a window, (C, 2, height, width), bilinear."""
        x = (np.arange(window.width) + window.col_off + 0.5 - self.origin[0]) / self.step
        y = (np.arange(window.height) + window.row_off + 0.5 - self.origin[1]) / self.step
        rows, cols = self.nodes.shape[-2:]
        return _lerp(_lerp(self.nodes, y, rows, -2), x, cols, -1)


@dataclass(frozen=True, eq=False)
class BurstFlow:
    """The motion of every frame of a burst: reference pixel p reads frame t at p + flow_t(p).

    ``flow_t(p) = offsets[t] + affine[t] @ (x - centre x, y - centre y, 1) + dense_t(p)``.

    Attributes:
        offsets: (T, 2) int (dx, dy): whole pixels; a frame moved by them lies on the reference to
            about a pixel.
        affine: (T, 2, 3) float64: what is left, rows dx and dy [px]; zero for the reference and NaN
            for a frame that was rejected, so that its motion cannot be used by mistake.
        centre: ``(x, y)`` about which the affine is written.
        dense: a smooth remainder (relief), frames along the first axis of its nodes; or None.
        uncertainty: (T,) expected error of the motion [px], infinite where rejected.
        rejected: frame index to the reason why it must not be used.
    """

    offsets: npt.NDArray[np.int64]
    affine: npt.NDArray[np.float64]
    centre: tuple[float, float]
    dense: FlowField | None = None
    uncertainty: npt.NDArray[np.float64] | None = None
    rejected: Mapping[int, str] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices of the frames that can be used, in order."""
        return tuple(t for t in range(len(self.offsets)) if t not in self.rejected)

    def select(self, frames: Sequence[int]) -> Self:
        """The flow of some of the frames, in the order given; ``select(flow.kept)`` is all good."""
        at = list(frames)
        return replace(
            self,
            offsets=self.offsets[at],
            affine=self.affine[at],
            dense=None if self.dense is None else replace(self.dense, nodes=self.dense.nodes[at]),
            uncertainty=None if self.uncertainty is None else self.uncertainty[at],
            rejected={i: self.rejected[t] for i, t in enumerate(at) if t in self.rejected},
        )

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """The whole motion at every pixel centre of a window, (T, 2, height, width) [px]."""
        return self.residual(window) + self.offsets[:, :, None, None].astype(np.float32)

    def residual(self, window: Window) -> npt.NDArray[np.float32]:
        """The motion beyond ``offsets``: what is left after frame t is read at the moved window."""
        x = np.arange(window.width) + (window.col_off + 0.5 - self.centre[0])
        y = np.arange(window.height) + (window.row_off + 0.5 - self.centre[1])
        a = self.affine[..., None, None]
        flow = (a[:, :, 0] * x + (a[:, :, 1] * y[:, None] + a[:, :, 2])).astype(np.float32)
        return flow if self.dense is None else flow + self.dense.read(window)


def _lerp(
    values: npt.NDArray[np.float32], at: npt.NDArray[np.floating[Any]], count: int, axis: int
) -> npt.NDArray[np.float32]:
    at = np.clip(at, 0, count - 1)
    i = np.minimum(at.astype(np.intp), max(count - 2, 0))
    shape = (-1, 1) if axis == -2 else (-1,)
    w = (at - i).astype(np.float32).reshape(shape)
    after = np.take(values, np.minimum(i + 1, count - 1), axis)
    return np.asarray(np.take(values, i, axis) * (1 - w) + after * w, np.float32)
