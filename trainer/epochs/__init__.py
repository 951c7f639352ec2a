"""Which records each epoch of a run trains on, and the check that it did."""
