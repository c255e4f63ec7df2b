"""The server's link to the bus and the two tokens that keep it open."""
