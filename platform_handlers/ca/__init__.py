"""Changing the installation's certificate authority while everybody stays connected."""
