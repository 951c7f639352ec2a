"""From files to shards: the work on pixels."""
