"""Tools: what a person runs on finished runs and on data."""
