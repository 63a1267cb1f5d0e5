"""A YAML file that a person wrote, or a stranger."""

from pathlib import Path
from typing import Any

import yaml

from l1bsr_geo.errors import BadInputError, MissingInputError

_DEEPEST = 50  # levels; libyaml crashes on very deep ones


def read_yaml(path: Path, what: str = "file") -> Any:
    """What a YAML file holds; nothing in it is run.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        MissingInputError: there is no such file.
        BadInputError: it is not YAML, or nested too deeply.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such {what}")
    try:
        return parse_yaml(path.read_text("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: is not YAML ({error})") from None


def parse_yaml(text: str, name: str) -> Any:
    """What a YAML text holds.

    Args:
        text: YAML.
        name: of its file, for the message.

    Raises:
        BadInputError: it is not YAML, or nested too deeply.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise BadInputError(f"{name}: is nested more than {_DEEPEST} levels deep")
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise BadInputError(f"{name}: is not YAML ({' '.join(str(error).split())})") from None
