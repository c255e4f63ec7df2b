"""Who may connect: the NATS operator, its accounts, their users, and the TLS certificates."""
