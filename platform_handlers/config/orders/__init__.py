"""Signed orders on their way to a server: given, answered, withdrawn."""
