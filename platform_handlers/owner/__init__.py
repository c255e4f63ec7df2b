"""The owner's side, on the owner's machine: knows the contracts and the API, no platform code."""
