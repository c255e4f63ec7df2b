"""From health reports to the few transitions that matter: silent, returned, rejected, accepted."""
