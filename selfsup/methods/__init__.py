"""Methods: one file each, a network and what it learns from."""
