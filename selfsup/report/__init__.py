"""Pages that a person looks at: HTML in one file, without scripts from elsewhere."""
