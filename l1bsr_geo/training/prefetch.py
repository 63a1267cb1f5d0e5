"""The next samples are drawn while the network works."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from l1bsr_geo.training.objective import Batch

_AHEAD = 2  # batches that wait, at most; memory is theirs


def draw_ahead(draw: Callable[[int], Batch], first: int, last: int) -> Generator[Batch, None, None]:
    """Samples of iterations in order, drawn in a thread of their own.

    Close the generator (``contextlib.closing``) where it is not run to its end.

    Args:
        draw: gives the samples of an iteration; what it raises is raised here, at its turn.
        first: iteration.
        last: iteration, the last that is drawn.
    """

    def call(iteration: int) -> Batch:
        with torch.no_grad():
            return draw(iteration)

    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "draw-ahead") as pool:
        try:
            for iteration in range(first, last + _AHEAD + 1):
                if iteration <= last:
                    waiting.append(pool.submit(call, iteration))
                if iteration >= first + _AHEAD and waiting:
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
