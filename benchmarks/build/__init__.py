"""The build against other tools."""
