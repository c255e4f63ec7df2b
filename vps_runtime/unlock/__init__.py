"""Opening the vault at start: the evaluator's half and the disk's half give the root key."""
