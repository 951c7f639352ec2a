"""From shards to batches on the devices."""
