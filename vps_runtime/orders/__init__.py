"""Signed orders: stop, resume, lock, unlock, trust, distrust; each obeyed once, answered once."""
