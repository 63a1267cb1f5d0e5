"""Weights on disk: reading them without running anything, and checking that they fit."""

import json
import pickle
import zipfile
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from l1bsr_geo.errors import MissingInputError, WeightsError
from l1bsr_geo.models.checkpoint_parts import WHERE, Shapes, State, find_state
from l1bsr_geo.models.stored import file_stem, find_cached, hash_file, hash_git_blob

SHIPPED = Path(str(resources.files("l1bsr_geo.models.weights")))
"""The folder of the weights that come with the package."""


@dataclass(frozen=True)
class PublishedWeights:
    """Trained weights where their authors keep them.

    Attributes:
        repository: ``owner/name`` on GitHub.
        commit: the commit that is pinned.
        path: the file in it.
        git_blob: what git calls the file's content (``hash_git_blob``).
        licence: SPDX name of the licence they come under; None where they state none.
    """

    repository: str
    commit: str
    path: str
    git_blob: str
    licence: str | None

    @property
    def page(self) -> str:
        """Where a person finds them, and the licence's text."""
        return f"https://github.com/{self.repository}/tree/{self.commit}"


def find_shipped(name: str, scale: int | None = None) -> Path | None:
    """The weights of a model that come with the package, or None.

    Args:
        name: of the model.
        scale: where it is not the model's usual one.
    """
    path = SHIPPED / f"{file_stem(name, scale)}.safetensors"
    return path if path.is_file() else None


def find_weights(
    name: str,
    given: str | Path | None,
    published: PublishedWeights | None,
    scale: int | None = None,
) -> Path:
    """The weights file of a model: the one given, else the user's cached one, else the shipped one.

    A cached file that says no scale (others published it) serves the scales that have no file of
    their own.

    Args:
        name: of the model.
        given: a file.
        published: what can be fetched, if anything.
        scale: where it is not the model's usual one.

    Raises:
        MissingInputError: it is not there; says how to get it.
    """
    if given is not None:
        if not Path(given).is_file():
            raise MissingInputError(f"{given}: there is no such weights file for {name}")
        return Path(given)
    cached, usual = find_cached(name, scale=scale), find_cached(name)
    if _is_kept_for(cached, published):
        return cached
    shipped = find_shipped(name, scale)
    if shipped is not None:
        return shipped
    if _is_kept_for(usual, published) and "scale" not in read_facts(usual):
        return usual
    what = name if scale is None else f"{name} x{scale}"
    if published is None or scale is not None:
        raise MissingInputError(
            f"{what} needs trained weights, none are published, and {cached} is not there; train "
            "it with `l1bsr-geo train` and give the file with --weights, or keep it with "
            f"`l1bsr-geo models import FILE --name {name}`"
        )
    licence = published.licence or "no licence stated"
    raise MissingInputError(
        f"{what} needs trained weights, and {cached} is not there; get the authors' own "
        f"({licence}) with `l1bsr-geo models fetch {name}`, or give a file with --weights"
    )


def _is_kept_for(cached: Path, published: PublishedWeights | None) -> bool:
    """Whether a cached file is there, and is not of what was once published under its name."""
    if not cached.is_file():
        return False
    blob = read_facts(cached).get("git_blob")
    return blob is None or (published is not None and blob == published.git_blob)


def read_checkpoint(path: Path, expected: Shapes | None = None) -> dict[str, Tensor]:
    """Parameters of a safetensors file, or of a torch file as authors publish them.

    Torch files are read with ``weights_only=True``: a pickle that would run code is refused. Where
    in them parameters may be: see ``checkpoint_parts.find_state``.

    Args:
        path: the file.
        expected: parameter name to shape of the network, whose parts are looked for.

    Returns:
        Parameter name to tensor on the CPU; floating-point ones in float32.

    Raises:
        MissingInputError: there is no such file.
        WeightsError: the file holds no weights.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such weights file")
    state = _read_torch(path, expected) if _is_pickle(path) else _read_safetensors(path)
    return {name: v.float() if v.is_floating_point() else v for name, v in state.items()}


def check_fits(state: State, expected: Shapes, what: str) -> None:
    """Refuse parameters that are not exactly a network's.

    Args:
        state: parameter name to tensor.
        expected: parameter name to shape, in the network's order.
        what: names the file and the network in the message.

    Raises:
        WeightsError: with the first name that differs, or that holds values that are not finite.
    """
    for name, shape in expected.items():
        if name not in state:
            raise WeightsError(f"{what}: {name} is expected with shape {_size(shape)}, not found")
        found = state[name]
        if found.shape != shape:
            raise WeightsError(
                f"{what}: {name} is expected with shape {_size(shape)}, found {_size(found.shape)}"
            )
        if not bool(torch.isfinite(found).all()):
            raise WeightsError(f"{what}: {name} has values that are not finite")
    for name, found in state.items():
        if name not in expected:
            raise WeightsError(
                f"{what}: {name} with shape {_size(found.shape)} is not a parameter of the network"
            )


def read_provenance(path: Path, published: PublishedWeights | None) -> dict[str, str]:
    """What a weights file is known to be: ours say it themselves, a published one by its content.

    Args:
        path: the file.
        published: what the model's authors published, if anything.

    Returns:
        ``licence``, ``repository``, ``commit``, ``path`` and others; empty for a file that says
        nothing and is not the published one.

    Raises:
        WeightsError: one of ours that is not what the sidecar beside it says.
    """
    if _is_pickle(path):
        if published is None or hash_git_blob(path) != published.git_blob:
            return {}
        return {name: value for name, value in asdict(published).items() if value is not None}
    sidecar = path.with_suffix(".json")
    if sidecar.is_file() and read_json(sidecar.read_bytes()).get("sha256") != hash_file(path):
        raise WeightsError(
            f"{path}: its sha256 is not the one in {sidecar.name} beside it: changed or damaged; "
            "fetch or import the weights again"
        )
    return read_facts(path)


def read_facts(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; empty for any other file.

    Weights of our trainer say ``model``, ``scale``, ``network`` (JSON: how the network was built),
    ``method``, ``licence`` and what they were trained with.
    """
    if _is_pickle(path):
        return {}
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError:
        return {}  # not weights at all, which reading it says better


def read_json(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON text; empty where it is no such text, however it is damaged."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def count_tensors(path: Path) -> int:
    """How many tensors a safetensors file holds; 0 for any other file."""
    if _is_pickle(path):
        return 0
    try:
        with safetensors.safe_open(path, "pt") as file:
            return len(file.keys())
    except safetensors.SafetensorError:
        return 0


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    # torch writes a zip, or before 1.6 a bare pickle; safetensors opens with a length and a brace
    return start[8:9] != b"{" and start.startswith((b"PK", b"\x80"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path}: not a weights file: neither safetensors ({error}) nor a torch checkpoint"
        ) from error


def _read_torch(path: Path, expected: Shapes | None) -> dict[str, Tensor]:
    try:
        if _is_zip(path):
            _check_stored(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: a pickle that holds more than weights, or a damaged one; it was not loaded, "
            "because loading more than weights can run code that came with the file"
        ) from error
    except Exception as error:  # a damaged pickle breaks its reader in any way
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise WeightsError(f"{path}: not a torch checkpoint, or a damaged one: {reason}") from error
    state = find_state(loaded, expected)
    for name, v in state.items():
        # an expanded tensor has more values than its file has bytes for
        if v.layout != torch.strided or v.is_meta or v.nbytes > v.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {name} is no plain tensor with a value to each place")
    if not state:
        raise WeightsError(
            f"{path}: a torch file without parameters: neither a dictionary of tensors nor one "
            f"under {', '.join(WHERE)}"
        )
    return state


def _check_stored(path: Path) -> None:
    """Refuse a torch file that is compressed: torch does not, and it could be a thousand times."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise WeightsError(
                f"{path}: a compressed .zip, which torch does not write; unpack it, and give the "
                "checkpoint inside"
            )


def _size(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "none"
