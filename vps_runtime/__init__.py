"""A server's runtime: takes sealed credentials in, keeps them encrypted, tells what is held."""
