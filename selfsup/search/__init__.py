"""Exact search: neighbours, ranks and indexes; the only room that compares queries with a bank."""
