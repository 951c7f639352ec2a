"""What a run directory holds: checkpoints, history, results, report."""
