"""Predictions of a split, and every figure that is computed from them alone."""
