"""NATS as the rest sees it: one way to connect, and the streams and consumers that must be there."""
