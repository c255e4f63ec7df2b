"""`byok demo`: the whole system on loopback, told step by step."""
