"""The platform's side: handlers around one ledger, and the commands of `byok`."""
