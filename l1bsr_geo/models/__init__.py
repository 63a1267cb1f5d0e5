"""Networks and classical restorers, one file per paper; the registry that names them."""
