"""The HTTPS API for owners' machines and the page for people, both scoped to one owner."""
