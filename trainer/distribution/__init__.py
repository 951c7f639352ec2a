"""Where a run computes: strategies, clusters, signals and lost workers."""
