"""What the files of a data set and of a run must hold, checked before anything uses them."""
