"""Becoming a server of an owner: the join, the keys made here, and whose keys are obeyed."""
