"""The page about a dataset: its figures, its pictures, its warnings."""
