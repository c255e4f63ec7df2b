"""Owners and servers: who they are, how a server enrols, and how it is turned away."""
