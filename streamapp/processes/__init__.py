"""Processes that start, watch and end others: nothing here knows what they do."""
