"""A trained model put to use where classes have other shares."""
