"""Losses: pure functions of the embeddings of the whole global batch, by family."""
