"""The intake: the one way of servers' facts into the ledger, checked and counted."""
