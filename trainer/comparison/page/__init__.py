"""The page of a comparison, section by section."""
