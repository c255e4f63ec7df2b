"""The blind evaluator: a process and a uid of its own, which holds keys and sees random points."""
