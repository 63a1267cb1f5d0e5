"""Where a pixel is on the ground: sensor models, pixel grids, heights (no files, no torch)."""
