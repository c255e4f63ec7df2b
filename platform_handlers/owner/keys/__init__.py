"""`byok key`: from the paste to the revocation."""
