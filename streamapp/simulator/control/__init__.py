"""What tests and people ask of the market, and do to it, over HTTP."""
