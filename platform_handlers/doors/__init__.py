"""What one server may ask of a handler, so that no server stands in the way of the others."""
