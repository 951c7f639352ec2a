"""Which records each epoch of a run trains on, and the proof that it did."""
