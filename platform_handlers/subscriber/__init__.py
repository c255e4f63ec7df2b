"""Event subscribers: a durable made for each, and credentials that reach nothing else."""
