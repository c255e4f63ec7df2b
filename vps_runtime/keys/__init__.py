"""The keys in use: opened, called with, and brought into use."""
