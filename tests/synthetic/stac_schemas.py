"""Validation of STAC by the official schemas, without a network."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pystac.validation import JsonSchemaSTACValidator, validate_dict

_FOLDER = Path(__file__).parents[1] / "schemas" / "stac"


@cache
def offline_validator() -> JsonSchemaSTACValidator:
    """pystac's validator; schemas of extensions come from ``tests/schemas/stac`` alone."""
    validator = JsonSchemaSTACValidator()  # it brings the schemas of STAC itself
    for file in sorted(_FOLDER.glob("*.json")):
        extension, version = file.stem.split("-v")
        uri = f"https://stac-extensions.github.io/{extension}/v{version}/schema.json"
        validator.schema_cache[uri] = json.loads(file.read_text("utf-8"))
    return validator


def validate_offline(document: dict[str, Any]) -> list[str]:
    """Check an item, collection or catalog by the schemas of STAC and of its extensions.

    Extensions whose schema is not here are left out.

    Returns:
        The addresses of the schemas that it was checked by.

    Raises:
        pystac.errors.STACValidationError: it is not valid.
    """
    validator = offline_validator()
    told = document.get("stac_extensions", [])
    known = [uri for uri in told if uri in validator.schema_cache]
    return validate_dict(document, extensions=known, validator=validator)
