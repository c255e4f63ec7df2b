"""From health reports to the few transitions that matter: silent, rejected, cloned, and back."""
