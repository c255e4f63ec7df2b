"""From a stored revision to the one in use, to one that is never used again."""
