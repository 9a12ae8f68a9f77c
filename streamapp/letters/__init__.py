"""Dead letters as a person works through them: read from their topic, explained, sent again or acknowledged."""
