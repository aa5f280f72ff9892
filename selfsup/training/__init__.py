"""Training runs: the step, the loop, optimisers, the run folder; no losses and no views."""
