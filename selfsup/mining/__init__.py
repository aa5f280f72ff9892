"""Mining: which triplets or pairs of a batch to learn from."""
