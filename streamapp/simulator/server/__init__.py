"""The trade server: takes requests, checks and executes them, and acts on prices and on time."""
