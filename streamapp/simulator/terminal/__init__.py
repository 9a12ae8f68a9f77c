"""The terminal program: what one client sees of the server, perhaps late, and what it may do."""
