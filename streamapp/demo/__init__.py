"""The demonstration: a seeded stream of approved signals, as a risk engine would send them, and what became of them."""
