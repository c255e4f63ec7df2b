"""What people see: a banner's lifecycle, its words, the board, and the feed that keeps it live."""
