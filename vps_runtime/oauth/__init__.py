"""Keeps sign-ins alive: refreshed here and nowhere else, stored before they are used."""
