"""Training: one loop, and one objective for each method."""
