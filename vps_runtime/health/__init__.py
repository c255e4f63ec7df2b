"""The periodic report of how this server is."""
