"""Keys on request, for an agent that cannot be routed: OpenClaw's exec SecretRef protocol."""
