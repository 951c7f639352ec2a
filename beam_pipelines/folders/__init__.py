"""How classes, splits and images lie in folders."""
