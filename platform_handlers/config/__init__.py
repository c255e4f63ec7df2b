"""What each server should hold, and how far it has come."""
