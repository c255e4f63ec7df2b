"""A running OpenClaw: its configuration, its WebSocket, and when it takes its keys anew."""
