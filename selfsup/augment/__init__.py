"""Random views: drawn for the global batch from (seed, step), applied on the device."""
