"""The server's agent: takes sealed credentials in, keeps them encrypted, tells what is held."""
