"""Whether this machine can train, and whether every method has one gradient whatever held it."""
