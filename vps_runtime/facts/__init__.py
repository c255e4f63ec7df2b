"""What this server tells the ledger: numbered, kept until it is sent, and never told twice."""
