"""What every room stands on: errors, command lines, seeds, processes, threads; no images."""
