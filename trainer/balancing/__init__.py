"""Which training images an epoch shows and how much each class counts, in NumPy."""
