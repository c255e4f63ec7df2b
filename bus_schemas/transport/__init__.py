"""The only place in the contracts that does I/O: the bus, the outbox, the ledger, small files."""
