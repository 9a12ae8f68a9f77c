"""Cancel, modify, protect, close: compared with the broker, asked for, compared again."""
