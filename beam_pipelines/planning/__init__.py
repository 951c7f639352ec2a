"""Groups, splits and shards, from columns of numbers."""
