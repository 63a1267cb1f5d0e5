"""The weights that come with the package: how they get there, and what they are the default for.

A file ``dsa.safetensors`` (``dsa-x3.safetensors`` at another than the usual scale) lies beside its
model card, ``dsa.md``, and the recipe that makes it again, ``dsa.yaml``.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models import checkpoint
from l1bsr_geo.models.base import ModelSpec, Restorer
from l1bsr_geo.models.cards import Results, write_card
from l1bsr_geo.models.checkpoint import find_shipped, read_facts
from l1bsr_geo.models.entries import Entry, find_entry
from l1bsr_geo.models.stored import file_stem

Kind: TypeAlias = Literal["bands", "burst", "exposures"]
"""What is restored: bands of one acquisition, a burst, a burst of several exposure times."""

LICENCE = "Apache-2.0"
"""Of the weights that ship, unless they say another."""

MOST_BYTES = 25_000_000
"""All shipped weights together."""

HALF_ERROR = 0.05
"""Largest difference [DN] that half-precision storage may make to a result."""

_DEFAULTS: dict[Kind, tuple[str, str]] = {
    "bands": ("l1bsr", "geometric"),
    "burst": ("dsa", "act"),
    "exposures": ("act", "act"),  # ahead of the hdr-dsp that ships: docs/benchmarks.md
}

F32 = npt.NDArray[np.float32]


def default_model(kind: Kind, scale: int | None = None) -> str:
    """The model that restores where none is asked for: the learned one where its weights ship.

    Args:
        kind: what is restored.
        scale: fine pixels to a pixel; the model's usual one where None.
    """
    learned, classical = _DEFAULTS[kind]
    entry = find_entry(learned)
    if scale not in (None, entry.spec.scale, *entry.scales):
        return classical
    return learned if find_shipped(learned, entry.unusual(scale)) else classical


def ship(
    best: str | Path,
    name: str,
    results: Results,
    *,
    recipe: str | Path | None = None,
    facts: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
) -> Path:
    """Put trained weights among those that ship, with card and recipe.

    They are stored in half precision where that changes a result by less than ``HALF_ERROR``.

    Args:
        best: weights as our trainer writes them.
        name: of the model.
        results: on held-out data, for the card.
        recipe: YAML that makes them again. Where None the one that lies there already, if it is
            what the file says (but for the schedule), else what the file says.
        facts: what else the card must say: ``data`` (what it is and whose), ``limits`` (a line
            each), ``licence``.
        folder: where they go; the package's where None.

    Returns:
        The weights file; ``.md`` and ``.yaml`` are beside it.

    Raises:
        BadOptionError: no recipe is known, or the one that lies there is another.
        WeightsError: the file is of another model, or not of the network that it says.
    """
    best, entry = Path(best), find_entry(name)
    restorer = entry.load(best)
    spec = restorer.spec
    told = {"network": "{}", "licence": LICENCE, **read_facts(best), **(facts or {})}
    told |= {"model": name, "scale": str(spec.scale), "results": json.dumps(results)}
    stem = file_stem(name, entry.unusual(spec.scale))
    target = Path(folder or checkpoint.SHIPPED) / f"{stem}.safetensors"
    if recipe is None:
        steps = _read_recipe(best, told, target.with_suffix(".yaml"))
    else:
        steps = Path(recipe).read_text("utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ship-") as place:
        written = _store(entry, restorer, told, Path(place))
        target.with_suffix(".md").write_text(write_card(written), "utf-8")
        target.with_suffix(".yaml").write_text(steps, "utf-8")
        written.replace(target)
    return target


def made_views(spec: ModelSpec, size: int = 48, seed: int = 0) -> tuple[F32, F32]:
    """Views of a made-up texture with aliasing, noise and known sub-pixel motion.

    Args:
        spec: of what will take them.
        size: rows and columns.
        seed: of everything random.

    Returns:
        views (1, T, C, size, size) [DN] and flow (1, T, C, 2, size, size) [px].
    """
    rng = np.random.default_rng(seed)
    frames, bands = 1 if spec.bands else min(6, spec.frames[1]), spec.band_count or 1
    f_y, f_x = np.fft.fftfreq(2 * size)[:, None], np.fft.rfftfreq(2 * size)
    white = np.fft.rfft2(rng.standard_normal((2 * size, 2 * size)))
    texture = white * np.sinc(2 * f_x) * np.sinc(2 * f_y) / (np.hypot(f_x, f_y) + 0.01)
    texture *= 300 / np.fft.irfft2(texture).std()
    motion = rng.uniform(-1, 1, (frames, bands, 2))
    motion[0, 1 if bands > 1 else 0] = 0  # the reference: B03, or the first frame
    turn = np.exp(-4j * np.pi * (f_x * motion[..., :1, None] + f_y * motion[..., 1:, None]))
    pixels = 1200 + np.fft.irfft2(texture * turn)[..., ::2, ::2]
    pixels += 10 * rng.standard_normal(pixels.shape)
    flow = np.broadcast_to(motion[..., None, None], (*motion.shape, size, size))
    return pixels[None].astype(np.float32), flow[None].astype(np.float32)


def _store(entry: Entry, restorer: Restorer, told: Mapping[str, str], folder: Path) -> Path:
    """The file, in half precision where that does no harm."""
    state = entry.trained_part(restorer).state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    whole_file, half_file = folder / "whole.safetensors", folder / "half.safetensors"
    _save(state, whole_file, told)
    if not all(bool(torch.isfinite(v).all()) for v in half.values()):
        return whole_file
    _save(half, half_file, told)
    change = _restore(restorer) - _restore(entry.load(half_file))
    return half_file if float(change.abs().max()) < HALF_ERROR else whole_file


def _save(state: Mapping[str, Tensor], path: Path, told: Mapping[str, str]) -> None:
    tensors = {name: v.contiguous() for name, v in state.items()}
    # save_file would hide it from others
    path.write_bytes(safetensors.torch.save(tensors, dict(told)))


def _restore(restorer: Restorer) -> Tensor:
    """What a restorer makes of ``made_views`` [DN]."""
    spec = restorer.spec
    views, flow = (torch.from_numpy(v) for v in made_views(spec))
    cast("nn.Module", restorer).eval()
    with torch.inference_mode():
        return restorer(views / spec.gain, flow if spec.flow else None).float() * spec.gain


def _read_recipe(best: Path, told: Mapping[str, str], there: Path) -> str:
    """The recipe that a weights file says, as it lies there or else as YAML."""
    if "recipe" not in told or "schedule" not in told:
        raise BadOptionError(f"{best}: it does not say its recipe; give the file of it")
    whole: dict[str, Any] = json.loads(told["recipe"])
    if there.is_file():
        text = there.read_text("utf-8")
        if _without_schedule(yaml.safe_load(text)) != _without_schedule(whole):
            raise BadOptionError(
                f"{there.name} beside the weights that ship is not the recipe that {best} was "
                "trained by; give the right one"
            )
        return text
    whole["schedule"] = json.loads(told["schedule"])
    return yaml.safe_dump(whole, sort_keys=False, default_flow_style=None)


def _without_schedule(recipe: Any) -> dict[str, Any]:
    """As JSON would give it back; the method may be told on the command line."""
    plain: dict[str, Any] = json.loads(json.dumps(recipe, default=str))
    return {name: value for name, value in plain.items() if name not in ("schedule", "method")}
