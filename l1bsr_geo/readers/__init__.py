"""Products on disk to images; every convention is converted here, once."""
