"""Photographs that no shipped network has seen, and how figures of them are told."""

import json

from tests.synthetic.fine_scenes import AERIAL

PHOTOGRAPHS = (
    "brighton/DJI_0024.jpg",
    "seneca/IMG_0578.jpg",
    "brighton/DJI_0025.jpg",
    "seneca/IMG_0600.jpg",
    "seneca/IMG_0589.jpg",
    "seneca/IMG_0611.jpg",
)


def name_scene(k):
    """The photograph, or that the scene is made up."""
    return PHOTOGRAPHS[k] if AERIAL.is_dir() else f"made {k}"


def tell(results, path):
    """As JSON, into a file where there is one."""
    text = json.dumps(results, indent=2)
    if path:
        path.write_text(text + "\n")
    else:
        print(text)
