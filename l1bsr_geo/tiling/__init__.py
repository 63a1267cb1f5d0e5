"""Large scenes in tiles: the plan and its lazy execution."""
