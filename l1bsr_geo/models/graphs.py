"""A network as a file that others wrote: what every format of it offers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph.

    Attributes:
        name: of it.
        shape: of it; None along an axis that may have any length.
        kind: of its numbers, as the format calls it.
    """

    name: str
    shape: tuple[int | None, ...]
    kind: str = "float32"


class Graph(Protocol):
    """A network that was read as data: nothing that the file's author wrote is run as code."""

    @property
    def inputs(self) -> tuple[GraphInput, ...]:
        """What it takes."""
        ...

    @property
    def metadata(self) -> str | None:
        """The facts that we wrote into it, as JSON."""
        ...

    def run(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Its outputs, in the order of the file.

        Args:
            *arrays: in the order of ``inputs``, on the device that it was opened for.

        Raises:
            GraphError: it does not take them.
        """
        ...


class GraphError(Exception):
    """A graph that fails on what it was given, in a few words; the caller says of which file."""
