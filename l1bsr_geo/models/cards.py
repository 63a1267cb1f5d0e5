"""Model cards: what a weights file is, written from what it says of itself."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import torch

from l1bsr_geo.errors import WeightsError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.checkpoint import read_facts
from l1bsr_geo.models.entries import Entry, find_entry
from l1bsr_geo.models.stored import file_stem, hash_file

Results: TypeAlias = Mapping[str, float | str | Mapping[str, float | str]]
"""What was measured on held-out data: row to a figure, or to figures by column."""

SECTIONS = (
    "What it is",
    "Data",
    "Schedule",
    "Hardware and time",
    "Seeds",
    "Held-out metrics",
    "Limits",
    "Licence",
    "How to retrain",
    "File",
)
"""Headings of a card, in order."""

_UNKNOWN = "The file does not say."
_FOLDER = "l1bsr_geo/models/weights"
_MAPPINGS = ("network", "recipe", "schedule", "results", "figures")
_ORIGIN = ("source", "repository", "commit", "path", "git_blob", "converted_by", "l1bsr_geo")


def write_card(weights: Path, results: Results | None = None, name: str | None = None) -> str:
    """The model card of a weights file.

    Args:
        weights: safetensors whose metadata say what it is; see ``checkpoint.read_facts``. Those of
            our trainer: ``recipe`` and ``schedule`` (JSON), ``iterations``, ``seconds``,
            ``hardware``, ``seed``, ``figures``; what ``ship`` adds: ``data``, ``limits``,
            ``licence``, ``results``.
        results: on held-out data; those in the file where None.
        name: of the model, where the file does not say it.

    Returns:
        Markdown, with the headings of ``SECTIONS``.

    Raises:
        BadOptionError: there is no such model.
        WeightsError: the file is for a network that cannot be built, or says what nobody can read.
    """
    facts = read_facts(weights)
    entry = find_entry(facts.get("model", name or ""))
    with torch.device("meta"):  # costs nothing, whatever the file says
        spec = entry.make_for(weights).spec
    told = {key: _read_mapping(weights, facts, key) for key in _MAPPINGS}
    recipe = told["recipe"]
    if not all(isinstance(recipe.get(key) or {}, dict) for key in ("data", "validation")):
        raise WeightsError(f"{weights}: data or validation of its recipe is no JSON object")
    sections = (
        _say_what(weights, facts, told["network"], spec),
        _say_data(facts, recipe),
        _say_schedule(facts, recipe, told["schedule"]),
        _say_hardware(facts),
        _say_seeds(facts, recipe),
        _say_results(facts, told["results"] if results is None else results, told["figures"]),
        _say_limits(facts, spec),
        facts.get("licence", "None is stated: ask the authors before any use that needs one."),
        _say_how(facts, recipe, entry, spec),
        f"`{_title(entry, spec)}.safetensors`, {weights.stat().st_size} bytes, sha256 "
        f"`{hash_file(weights)}`.",
    )
    parts = [f"# {spec.name} x{spec.scale}"]
    parts += [f"## {head}\n\n{text}" for head, text in zip(SECTIONS, sections, strict=True)]
    text = "\n\n".join(parts) + "\n"
    # a terminal obeys control characters
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _read_mapping(weights: Path, facts: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(facts.get(key, "{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WeightsError(f"{weights}: what it says under {key} is no JSON object")
    return value


def _say_what(
    weights: Path, facts: Mapping[str, str], network: Mapping[str, Any], spec: ModelSpec
) -> str:
    count, types = _count_parameters(weights)
    any_bands = f"any {spec.channels} bands" if spec.channels else "one band or several"
    bands = ", ".join(spec.bands) if spec.bands else any_bands
    least, most = spec.frames
    frames = f"{least} view" if least == most else f"{least} to {most} views"
    lines = [
        f"{spec.source}.",
        "",
        f"{count} parameters, stored as {', '.join(types)}, run in float32. Takes {bands}, "
        f"{frames}{', their motion' if spec.flow else ''}"
        f"{', their exposures' if spec.exposures else ''}; gives x{spec.scale}.",
        "",
        *_list_values("architecture", network or "the default"),
        *(f"- {key}: {facts[key]}" for key in _ORIGIN if key in facts),
    ]
    return "\n".join(lines)


def _say_data(facts: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    lines = [facts["data"], ""] if "data" in facts else []
    for key, what in (("data", "trained on"), ("validation", "validated on"), ("start", "start")):
        if recipe.get(key):
            lines += _list_values(what, recipe[key])
    return "\n".join(lines) or _UNKNOWN


def _say_schedule(
    facts: Mapping[str, str], recipe: Mapping[str, Any], schedule: Mapping[str, Any]
) -> str:
    lines = _list_values("method", facts.get("method"))
    lines += _list_values("objective", recipe.get("objective"))
    lines += _list_values("iterations done", facts.get("iterations"))
    lines += _list_values("planned", schedule)
    return "\n".join(lines) or _UNKNOWN


def _say_hardware(facts: Mapping[str, str]) -> str:
    lines = _list_values("hardware", facts.get("hardware"))
    if re.fullmatch(r"[0-9]{1,12}", facts.get("seconds", "")):
        minutes = int(facts["seconds"]) / 60
        lines.append(
            f"- time: {minutes / 60:.1f} h" if minutes >= 90 else f"- time: {minutes:.1f} min"
        )
    else:
        lines += _list_values("seconds", facts.get("seconds"))
    lines += _list_values("torch", facts.get("torch"))
    return "\n".join(lines) or _UNKNOWN


def _say_seeds(facts: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    lines = _list_values("training", facts.get("seeds", facts.get("seed")))
    for key in ("data", "validation"):
        options = recipe.get(key) or {}
        if options:
            lines += _list_values(key, options.get("seed", 0))
    return "\n".join(lines) or _UNKNOWN


def _say_results(facts: Mapping[str, str], results: Results, figures: Mapping[str, Any]) -> str:
    tables = [_table(results)] if results else []
    if figures:
        told = ", ".join(f"{name} {_figure(value)}" for name, value in figures.items())
        tables.append(f"On the validation samples of the training, best weights: {told}.")
    elif "score" in facts:
        tables.append(f"Best score on the validation samples of the training: {facts['score']}.")
    return "\n\n".join(tables) or "None were measured."


def _say_limits(facts: Mapping[str, str], spec: ModelSpec) -> str:
    lines = [f"- {line}" for line in facts.get("limits", "").splitlines() if line.strip()]
    if spec.flow:
        lines.append(
            "- The motion of the views is an input: its errors blur the result, and motion that is "
            "not smooth (vehicles, clouds) is not followed."
        )
    lines.append(
        "- It learnt optics, noise and texture from its training data; elsewhere it may be worse "
        "than a classical model, and detail near the finest scale is an estimate."
    )
    return "\n".join(lines)


def _say_how(
    facts: Mapping[str, str], recipe: Mapping[str, Any], entry: Entry, spec: ModelSpec
) -> str:
    if "method" not in facts:
        return _UNKNOWN
    reads = _has_text({k: v for k, v in (recipe.get("data") or {}).items() if k != "kind"})
    data = " --data DATA" if reads else ""
    command = f"l1bsr-geo train {facts['method']} {_FOLDER}/{_title(entry, spec)}.yaml{data}"
    where = "\n\nDATA is the folder where the paths of its images start." if reads else ""
    return f"```sh\n{command}\n```{where}"


def _title(entry: Entry, spec: ModelSpec) -> str:
    return file_stem(spec.name, entry.unusual(spec.scale))


def _count_parameters(weights: Path) -> tuple[int, list[str]]:
    count, types = 0, set()
    with safetensors.safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            tensor = file.get_tensor(key)
            count += tensor.numel()
            types.add(str(tensor.dtype).removeprefix("torch."))
    return count, sorted(types)


def _list_values(name: str, value: Any) -> list[str]:
    """``- name: value``, entries of a mapping below it; nothing where there is no value."""
    if value in (None, "", {}):
        return []
    if isinstance(value, Mapping):
        return [f"- {name}:", *(f"  - {key}: {_text(v)}" for key, v in value.items())]
    return [f"- {name}: {_text(value)}"]


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list | bool) or value is None:
        return json.dumps(value)
    return str(value)


def _has_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_text, value.values()))
    return isinstance(value, str) or (isinstance(value, list) and any(map(_has_text, value)))


def _table(results: Results) -> str:
    rows = {k: v if isinstance(v, Mapping) else {"value": v} for k, v in results.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [_row(["", *columns]), _row(["---"] * (len(columns) + 1))]
    lines += [_row([k, *(_figure(v.get(c, "")) for c in columns)]) for k, v in rows.items()]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
