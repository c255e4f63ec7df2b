"""Asking the provider itself whether a credential is good, by the cheapest call it documents."""
