"""Images and labels by position: sources, decoding, samplers and the loader."""
