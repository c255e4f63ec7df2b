"""From the desired document to what the vault holds: plan, admit, reconcile."""
