"""The contracts of byok: what is said on the bus, by whom, and how it is sealed and signed."""
