"""Figures that are worth keeping, each beside a baseline measured in the same run."""
