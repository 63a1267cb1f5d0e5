"""The products, each a function read top to bottom: read, align, restore, draw, write."""
