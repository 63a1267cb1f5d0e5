"""Images of any number of bands through networks of one channel: each band by itself."""

from torch import Tensor

from l1bsr_geo.errors import BadInputError


def fold_bands(views: Tensor, channels: int, name: str) -> Tensor:
    """Let the bands join the batch where a network has one channel.

    Args:
        views: (B, T, C, H, W).
        channels: of the network.
        name: of the network, for the message.

    Returns:
        (B * C, T, 1, H, W), or ``views`` where C is ``channels``. What the network makes of it is
        brought back by ``unfold_bands``.

    Raises:
        BadInputError: C is not ``channels``, which is not one.
    """
    bands = views.shape[2]
    if bands == channels:
        return views
    if channels != 1:
        raise BadInputError(
            f"this {name} takes {channels} bands at once; got {bands}; give it those, or take a "
            "network of one channel, which restores any number of bands one by one"
        )
    return views.transpose(1, 2).flatten(0, 1)[:, :, None]


def unfold_bands(image: Tensor, bands: int) -> Tensor:
    """Bands back from the batch: (B * C, 1, H, W) to (B, C, H, W)."""
    return image.reshape(-1, bands, *image.shape[-2:])
