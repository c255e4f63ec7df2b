"""`byok doctor`: is the platform well, and if not, what to do. Reads only, changes nothing."""
