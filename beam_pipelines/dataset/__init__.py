"""The finished dataset directory: what it held before, its manifest, its replacement."""
