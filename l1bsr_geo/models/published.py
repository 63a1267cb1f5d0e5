"""Weights that others trained: fetched or imported, checked, and kept as safetensors."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from l1bsr_geo import __version__
from l1bsr_geo.errors import BadOptionError, MissingInputError, WeightsError
from l1bsr_geo.models.checkpoint import (
    PublishedWeights,
    check_fits,
    read_checkpoint,
    read_facts,
    read_provenance,
)
from l1bsr_geo.models.download import Progress, download
from l1bsr_geo.models.entries import MODELS, find_entry
from l1bsr_geo.models.stored import find_cached, hash_file, hash_git_blob

SERVER = "https://raw.githubusercontent.com"
"""Where published weights are fetched; ``$L1BSR_GEO_WEIGHTS_URL`` names a mirror of it."""


def fetch(
    name: str,
    accept_licence: bool | Callable[[str], bool],
    cache: str | Path | None = None,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a model's published weights and keep them, checked and converted, in the cache.

    Args:
        name: of the model.
        accept_licence: whether the user accepts the licence, or a function that shows them its
            notice and asks.
        cache: folder; see ``find_cached``.
        base_url: server with the layout ``<base>/<owner>/<repository>/<commit>/<path>``.
        progress: is told (bytes there, bytes in all or None).

    Returns:
        The safetensors file; ``.json`` beside it holds its sha256 and where it comes from.

    Raises:
        BadOptionError: nothing is published under the name, or the licence is not accepted.
        DownloadError: it cannot be reached, or is not what was pinned.
        WeightsError: it is not this network's.
    """
    entry = find_entry(name)
    weights = entry.weights
    if weights is None:
        why = "no weights are published" if entry.trainable else "is not trained"
        raise BadOptionError(f"{name}: {why}, there is nothing to fetch")
    accepted = accept_licence(notice(name, weights)) if callable(accept_licence) else accept_licence
    if not accepted:
        raise BadOptionError(
            f"{notice(name, weights)} Nothing was fetched: the licence was not accepted"
        )
    base = base_url or os.environ.get("L1BSR_GEO_WEIGHTS_URL") or SERVER
    url = f"{base.rstrip('/')}/{weights.repository}/{weights.commit}/{weights.path}"
    target = find_cached(name, cache)
    if target.is_file() and read_provenance(target, weights).get("git_blob") == weights.git_blob:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    original = target.with_name(f"{name}-{Path(weights.path).name}")
    by_hand = (
        f"download {url} where there is a network and give the file with --weights, or to "
        "`l1bsr-geo models import`"
    )
    download(url, original, {"git_blob": weights.git_blob}, progress, by_hand)
    try:
        return _convert(original, name, target, source=url)
    finally:
        original.unlink()


def import_weights(
    path: str | Path, name: str | None = None, cache: str | Path | None = None
) -> Path:
    """Keep a weights file in the cache: a published checkpoint as downloaded, or safetensors.

    Args:
        path: the file.
        name: the model it is for; where None what it says, or else found by its parameters.
        cache: folder; see ``find_cached``.

    Returns:
        The safetensors file in the cache, which ``Model(name)`` takes from now on.

    Raises:
        MissingInputError: there is no such file.
        BadOptionError: the model takes no weights.
        WeightsError: the file holds no weights, or another network's.
    """
    path = Path(path)
    name = name or recognise(path)
    entry = find_entry(name)
    if not entry.takes_weights:
        raise BadOptionError(f"{name} is not trained: it takes no weights")
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such weights file")
    with torch.device("meta"):
        scale = entry.unusual(entry.make_for(path).spec.scale)
    target = find_cached(name, cache, scale)
    return _convert(path, name, target, source=path.name)


def recognise(path: Path) -> str:
    """The model that a file holds: as it says, by its published content, or by its parameters.

    Raises:
        MissingInputError: there is no such file.
        WeightsError: no weights, or of no model here; says of which they nearly are.
    """
    if path.is_file() and (said := read_facts(path).get("model")) in MODELS:
        return said
    trained = {name: entry.shapes() for name, entry in MODELS.items() if entry.takes_weights}
    state = read_checkpoint(path)
    blob = hash_git_blob(path)
    for name in trained:
        published = MODELS[name].weights
        if published is not None and published.git_blob == blob:
            return name
    for name, shapes in trained.items():
        found = read_checkpoint(path, shapes)
        # the file must hold nothing else: a part of one network can be the whole of another
        if len(found) == len(state) and {k: v.shape for k, v in found.items()} == shapes:
            return name
    # the one with most names in common, so that the message says what is wrong with it
    nearest = max(trained, key=lambda name: len(trained[name].keys() & state.keys()))
    if not trained[nearest].keys() & state.keys():
        raise WeightsError(
            f"{path}: the weights of none of {', '.join(trained)}; its first parameter is "
            f"{next(iter(state), 'missing')}"
        )
    check_fits(state, trained[nearest], f"{path} as weights of {nearest}, the nearest network")
    return nearest


def notice(name: str, weights: PublishedWeights) -> str:
    """What a user is shown before weights are fetched."""
    whose = f"The trained weights of {name} are the work of {weights.repository}"
    if weights.licence is None:
        return (
            f"{whose}, which states no licence ({weights.page}): nobody is given any right beyond "
            "looking at them there, so ask the authors before any use that needs one; l1bsr_geo "
            "itself does not contain them."
        )
    return (
        f"{whose} and come under {weights.licence} (its text: {weights.page}); l1bsr_geo itself "
        "does not contain them."
    )


def _convert(path: Path, name: str, target: Path, source: str) -> Path:
    """Check a checkpoint and write it as safetensors with its sidecar; both, or neither."""
    entry = find_entry(name)
    shapes = entry.shapes_for(path)
    state = read_checkpoint(path, shapes)
    check_fits(state, shapes, f"{path} as weights of {name}")
    facts = {"model": name, "source": source, "converted_by": f"l1bsr_geo {__version__}"}
    facts |= read_provenance(path, entry.weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
        converted, sidecar = Path(folder) / target.name, Path(folder) / "sidecar.json"
        tensors = {k: v.contiguous() for k, v in state.items()}
        converted.write_bytes(safetensors.torch.save(tensors, facts))
        record = {**facts, "sha256": hash_file(converted)}
        sidecar.write_text(json.dumps(record, indent=2) + "\n")
        sidecar.replace(target.with_suffix(".json"))
        converted.replace(target)
    return target
