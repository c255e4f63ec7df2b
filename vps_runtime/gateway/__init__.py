"""The key gateway: takes the agent's calls on loopback, adds the key, passes the answer on."""
