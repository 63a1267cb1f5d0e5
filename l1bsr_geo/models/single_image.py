"""Any network that makes one image finer, as a restorer."""

from typing import cast

from torch import Tensor, nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.base import ModelSpec


class SingleImage(nn.Module):
    """A module that maps (B, C, H, W) to (B, C, scale * H, scale * W), with its spec.

    Args:
        network: the module.
        spec: what the rest of the package must know; above all ``scale``, ``bands`` (needed unless
            it takes any number of them), ``halo`` (how far the network looks), ``gain`` (DN per
            unit of its input) and ``multiple``.

    Raises:
        BadOptionError: the spec asks for what one image cannot give.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        asked = [n for n in ("flow", "exposures", "scene_statistics") if getattr(spec, n)]
        if spec.frames != (1, 1) or asked:
            raise BadOptionError(
                f"{spec.name}: a network of single images takes one frame and no more, but its "
                f"spec has frames {spec.frames} and asks for {', '.join(asked) or 'nothing'}; "
                "write a Restorer for it"
            )
        self.network = network
        self.spec = spec

    def forward(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN / gain].
            flow: not used.

        Returns:
            (B, C, scale * H, scale * W) [DN / gain].
        """
        return cast("Tensor", self.network(views[:, 0]))
