"""Products and scenes with known truth, for demonstrations, tests and training."""
