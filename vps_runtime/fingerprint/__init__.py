"""Blind tags: evaluated elsewhere without being shown, announced once, renewed daily."""
