"""What there is before anybody trades: the server's time, the broker's symbols, quotes and bars."""
