"""What operators read: the streams as they come, and the ledger folded again, read only."""
