"""The server's encrypted store: `record` is the layout, `store` and `root_file` the disk."""
