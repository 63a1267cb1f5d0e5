"""Graphs of images as restorers: any batch, any size, whatever units and layout they have."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.file_facts import Layout
from l1bsr_geo.models.graphs import Graph, GraphError


class GraphRestorer:
    """A graph that maps (B, C, H, W) to (B, C, scale * H, scale * W).

    A graph of one size only is laid over larger images in windows that share a halo, so that its
    size is no concern of tiles.

    Args:
        graph: the network.
        spec: what the rest of the package must know.
        mean: taken off every channel before, and added after [DN / gain].
        std: what channels are divided by before, and multiplied with after.
        layout: where the graph has its channels.
    """

    def __init__(
        self,
        graph: Graph,
        spec: ModelSpec,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        layout: Layout = "channels-first",
    ) -> None:
        self.spec = spec
        self._graph, self._layout = graph, layout
        self._mean, self._std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        shape = graph.inputs[0].shape
        self._batch = shape[0]
        rows = 2 if layout == "channels-first" else 1
        self.fixed = shape[rows], shape[rows + 1]
        """Height and width [px] where there is no other, else None."""

    def __call__(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN / gain].
            flow: not used.

        Returns:
            (B, C, scale * H, scale * W) [DN / gain].

        Raises:
            BadInputError: the graph fails on them.
        """
        with self._saying(views):
            return self._restore(views[:, 0])

    def call(self, image: Tensor, *more: Tensor) -> Tensor:
        """The graph on images of a size that it takes; what shape comes back is not looked at."""
        return self.call_all(image, *more)[0]

    def call_all(self, image: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """As ``call``, and all that the graph gives beside its image."""
        mean, std = (v.to(image) for v in (self._mean, self._std))
        image = (image - mean) / std
        count = len(image)
        parts = [image] if self._batch is None else _fill_batches(image, self._batch)
        results = [self._run(part, more) for part in parts]
        first = torch.cat([r[0] for r in results])[:count]
        return first * std + mean, *results[0][1:]

    @contextmanager
    def _saying(self, views: Tensor) -> Iterator[None]:
        try:
            yield
        except GraphError as error:
            found = tuple(views.shape)
            raise BadInputError(f"{self.spec.name} fails on {found}: {error}") from None

    def _run(self, image: Tensor, more: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        last = self._layout == "channels-last"
        first, *others = self._graph.run(image.movedim(1, -1) if last else image, *more)
        if first.ndim != 4:
            raise GraphError(f"it gives {first.ndim} axes, {tuple(first.shape)}, expected 4")
        return (first.movedim(-1, 1) if last else first).float(), *others

    def _restore(self, image: Tensor) -> Tensor:
        if self.fixed == (None, None):
            return self.call(image)
        size = image.shape[-2:]
        window = [n if fixed is None else fixed for n, fixed in zip(size, self.fixed, strict=True)]
        below, right = (max(0, w - n) for w, n in zip(window, size, strict=True))
        padded = functional.pad(image, (0, right, 0, below), "replicate")
        scale, halo, multiple = self.spec.scale, self.spec.halo, self.spec.multiple
        height, width = padded.shape[-2:]
        result = image.new_empty(*image.shape[:2], scale * height, scale * width)
        for top, rows in _windows(height, window[0], halo, multiple):
            for left, cols in _windows(width, window[1], halo, multiple):
                part = padded[..., top : top + window[0], left : left + window[1]]
                fine = self.call(part)
                y, x = (slice(scale * s.start, scale * s.stop) for s in (rows, cols))
                result[..., y, x] = fine[
                    ..., y.start - scale * top : y.stop - scale * top,
                    x.start - scale * left : x.stop - scale * left,
                ]  # fmt: skip
        return result[..., : scale * size[0], : scale * size[1]]


class PoolingGraphRestorer(GraphRestorer):
    """A graph of ours that pools over the image: it takes what is pooled, or gives it.

    Its second input are the statistics; where they are NaN, it pools over the image itself. Its
    second output is what it used.
    """

    def __call__(
        self,
        views: Tensor,
        flow: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Restore; see SceneRestorer."""
        told = () if statistics is None else (statistics["pooled"].to(views),)
        with self._saying(views):
            return self.call(views[:, 0], *told)

    def call_all(self, image: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """As any graph's; what is pooled may be left out."""
        if not more:
            shape = [n or 1 for n in self._graph.inputs[1].shape]
            more = (torch.full(shape, torch.nan, device=image.device),)
        results = super().call_all(image, *more)
        if len(results) != 2 or results[1].shape != more[0].shape:
            raise GraphError("it pools over the scene, but does not give what it pools")
        return results

    def scene_statistics(self, views: Tensor) -> dict[str, Tensor]:
        """What is pooled on these views, averaged over the batch; see SceneRestorer."""
        with self._saying(views):
            pooled = [self.call_all(view)[1] for view in views]
        return {"pooled": torch.stack(pooled).mean(0)}


def _fill_batches(image: Tensor, count: int) -> Iterator[Tensor]:
    """Batches of one length; the last is filled up with its last image."""
    for part in torch.split(image, count):
        yield torch.cat([part, part[-1:].expand(count - len(part), -1, -1, -1)])


def _windows(length: int, size: int, halo: int, multiple: int) -> Iterator[tuple[int, slice]]:
    """Where windows begin, and which pixels are taken from each; those at the ends keep theirs."""
    step = max(1, (size - 2 * halo) // multiple * multiple)
    starts = [*range(0, length - size, step), length - size]
    for i, start in enumerate(starts):
        first = 0 if i == 0 else starts[i - 1] + size - halo
        last = length if i == len(starts) - 1 else start + size - halo
        yield start, slice(first, last)
