"""Checks of this machine, and of every method's gradient on several processes."""
