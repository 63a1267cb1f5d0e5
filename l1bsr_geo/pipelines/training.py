"""From a recipe to trained weights."""

import json
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

import l1bsr_geo
from l1bsr_geo.errors import OutputExistsError
from l1bsr_geo.training.act import choose_act
from l1bsr_geo.training.arguments import fit_arguments
from l1bsr_geo.training.checkpoints import check_folder
from l1bsr_geo.training.methods import find_method, make_objective, make_source, make_student
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.recipe import Recipe, read_recipe
from l1bsr_geo.training.trainer import Progress, Trainer

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Training:
    """What a training came to.

    Attributes:
        weights: the best, on disk.
        iteration: the last that was done.
        iterations: of the schedule.
        score: the best; None where nothing was scored.
        score_iteration: when it was.
        ended: "done", "no gain", "minutes" or "interrupted".
    """

    weights: Path
    iteration: int
    iterations: int
    score: float | None
    score_iteration: int
    ended: str


def train(
    config: PathLike,
    output: PathLike,
    *,
    method: str | None = None,
    data: PathLike | None = None,
    resume: bool = False,
    device: Device = "auto",
    minutes: float | None = None,
    iterations: int | None = None,
    start: PathLike | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Training:
    """Train a network as a recipe says.

    Args:
        config: recipe; see ``training.recipe``.
        output: folder of this training; gets ``best.safetensors``, ``last.safetensors``,
            ``checkpoint.pt`` and ``log.jsonl``.
        method: where the recipe names none.
        data: where relative paths of the recipe start; its own folder where None.
        resume: go on from the folder's checkpoint.
        device: ``"auto"`` takes a GPU where there is one.
        minutes: end after so many, with a checkpoint.
        iterations: in place of the recipe's.
        start: weights, in place of the recipe's.
        tensorboard: log for TensorBoard, too.
        progress: told after every iteration.

    Raises:
        L1bsrGeoError: see ``read_recipe`` and ``Trainer.run``.
    """
    recipe = read_recipe(Path(config), method=method, root=None if data is None else Path(data))
    recipe = recipe.override(iterations=iterations, start=None if start is None else Path(start))
    if recipe.method == "act":
        return search_act(recipe, Path(output))
    check_folder(Path(output), resume)  # before samples are drawn
    trainer = make_trainer(recipe, Path(output), device, tensorboard, fresh=not resume)
    weights = trainer.run(resume, minutes, progress)
    state = trainer.state
    return Training(
        weights,
        state.iteration,
        recipe.schedule.iterations,
        state.best,
        state.best_iteration,
        trainer.ended,
    )


def search_act(recipe: Recipe, folder: Path) -> Training:
    """ACT's parameters by search on the recipe's samples, into ``act.json``; nothing is trained.

    Args:
        recipe: its objective holds the options of ``training.act.choose_act``.
        folder: of the result.

    Raises:
        OutputExistsError: the folder holds a result already.
    """
    result = folder / "act.json"
    if result.exists():
        raise OutputExistsError(f"{result} exists already; take another folder")
    scale = recipe.network.get("scale", 2)
    samples, root = recipe.data, recipe.root
    source = make_source(samples.kind, samples.options, scale, recipe.where("data"), root)
    search = partial(choose_act, source)
    options = fit_arguments(search, recipe.objective, recipe.where("objective"), root)
    choice = search(**{"scale": scale, **options})
    folder.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(choice.as_dict(), indent=2) + "\n", "utf-8")
    trials = len(choice.trials)
    best = choice.trials.index(choice.best) + 1
    return Training(result, trials, trials, choice.best.figures["score"], best, "done")


def make_trainer(
    recipe: Recipe,
    folder: Path,
    device: Device = "auto",
    tensorboard: bool = False,
    fresh: bool = True,
) -> Trainer:
    """All that a recipe names, put together.

    Args:
        recipe: checked here to the last option.
        folder: of the training.
        device: where it runs.
        tensorboard: log for TensorBoard, too.
        fresh: load the weights to start from; not needed to resume.
    """
    method = find_method(recipe.method)
    student = make_student(
        method, recipe.model, recipe.network, recipe.where("network"), recipe.schedule.seed
    )
    recipe.schedule.groups(student.network)  # a wrong name there is said before samples are drawn
    for part, weights in recipe.start.items() if fresh else ():
        student.load(weights, part)
    scale, root = student.scale, recipe.root
    facts = {
        **student.facts,
        "method": recipe.method,
        "recipe": json.dumps(recipe.text, default=str),
        "schedule": json.dumps(asdict(recipe.schedule)),
        "l1bsr_geo": l1bsr_geo.__version__,
    }
    return Trainer(
        student.network,
        make_objective(method, recipe.objective, scale, recipe.where("objective"), root),
        make_source(recipe.data.kind, recipe.data.options, scale, recipe.where("data"), root),
        draw_validation(recipe, scale),
        recipe.schedule,
        folder,
        device,
        facts,
        recipe.text,
        student.part,
        tensorboard,
    )


def draw_validation(recipe: Recipe, scale: int | None = None) -> list[Batch]:
    """The samples that a recipe scores, batch by batch; always the same.

    Args:
        recipe: one.
        scale: of the network, where its model has several.
    """
    chosen = recipe.validation
    if chosen is None:
        return []
    samples, where = chosen.samples, recipe.where("validation")
    source = make_source(samples.kind, samples.options, scale, where, recipe.root)
    rng = np.random.default_rng(0)  # not of the schedule: other seeds are scored alike
    starts = range(0, chosen.count, chosen.batch)
    return [source.draw(rng, min(chosen.batch, chosen.count - start)) for start in starts]
