"""The training itself: learner, loss, steps, loop, and the whole run."""
