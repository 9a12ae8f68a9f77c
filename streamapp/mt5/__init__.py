"""What MetaTrader 5 defines: its numbers, our words for them, and what its answers mean. Pure data, no I/O."""
