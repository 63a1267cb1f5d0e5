"""DnCNN: an image without its noise, by a plain stack of convolutions that finds the noise."""

from typing import cast

from torch import Tensor, nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.channels import fold_bands, unfold_bands


def make_spec(
    name: str = "dncnn", channels: int = 3, depth: int = 17, gain: float = 255.0
) -> ModelSpec:
    """What the rest of the package must know of a DnCNN."""
    return ModelSpec(
        name=name,
        channels=None if channels == 1 else channels,
        scale=1,
        halo=depth,
        gain=gain,
        source="Zhang et al., DnCNN, TIP 2017 (arXiv 1608.03981)",
    )


class DnCNN(nn.Module):
    """One frame in, the frame less what the network takes for noise out.

    Parameter names as in the weights that are published for PyTorch (SaoYan/DnCNN-PyTorch).

    Args:
        channels: bands of a frame. With one, each band is restored by itself.
        depth: convolutions; the first has an activation, the last none, those between also batch
            normalisation.
        width: channels inside.
        gain: DN per unit of its input.
        name: registry name.

    Raises:
        BadOptionError: fewer than two convolutions.

    Source: Zhang et al., Beyond a Gaussian denoiser, TIP 2017 (arXiv 1608.03981).
    """

    def __init__(
        self,
        channels: int = 3,
        depth: int = 17,
        width: int = 64,
        gain: float = 255.0,
        name: str = "dncnn",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise BadOptionError(f"{name} of {depth} convolutions; it has 2 or more")
        self.spec = make_spec(name, channels, depth, gain)
        self.channels = channels
        inner = [
            layer
            for _ in range(depth - 2)
            for layer in (_conv(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        ]
        self.dncnn = nn.Sequential(
            _conv(channels, width), nn.ReLU(inplace=True), *inner, _conv(width, channels)
        )
        start_quietly(self.dncnn[-1])

    def forward(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN / gain].
            flow: not used.

        Returns:
            (B, C, H, W) [DN / gain].

        Raises:
            BadInputError: bands that it does not take.
        """
        frame = fold_bands(views, self.channels, self.spec.name)[:, 0]
        noise: Tensor = self.dncnn(frame)
        return unfold_bands(frame - noise.to(frame), views.shape[2])


def start_quietly(last: nn.Module) -> None:
    """Make the last convolution of what finds noise find little before it is trained.

    With a start of the usual size it is the first thing that training makes small, and then what
    lies before it learns nothing for hundreds of steps.
    """
    cast("nn.Conv2d", last).weight.data.mul_(0.05)


def _conv(channels: int, width: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
