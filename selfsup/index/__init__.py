"""An index: embeddings of a gallery in a folder, and ways to search them."""
