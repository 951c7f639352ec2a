"""Reads shards, balances the training stream, trains, evaluates exactly and reports."""
